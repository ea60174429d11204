"""What ``inspect`` shows of an engine that TensorRT-RTX compiled: the kernels of a run, their types, what they fuse."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from trt_layermerge.cli.show import print_json
from trt_layermerge.report.wide_console import wide_console
from trt_layermerge.runtimes.nvidia.rtx_plan import kernels, read_header


def inspect_plan(path: Path, *, as_json: bool) -> None:
    """List the kernels of a plan.

    Raises:
        ModelError: The file is no plan of TensorRT-RTX, or is damaged.
    """
    header = read_header(path)
    found = kernels(path.read_bytes())
    if as_json:
        about = {"engine": str(path), "version": header.version, "targets": list(header.targets)}
        print_json(about | {"launches": len(found), "kernels": [asdict(kernel) for kernel in found]})
        return
    console = wide_console()
    table = Table("kernel", "writes", "of the network", title=f"{path}, {', '.join(header.targets)}, {header.version}")
    for kernel in found:
        name = f"convolution {kernel.name}" if kernel.convolution else kernel.name
        table.add_row(name, kernel.type, ", ".join(kernel.fused))
    console.print(table)
    types = Counter(kernel.type for kernel in found if kernel.convolution)
    convolutions = ", ".join(f"{count} in {kind}" for kind, count in types.items())
    console.print(f"{len(found)} launches; convolutions: {convolutions or 'none'}")
