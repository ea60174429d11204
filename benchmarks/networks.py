"""Every network of the papers and those that people bring: what merges, what does not, and that merges are right.

Without options, one row for each network from ``inspect --json`` in a process of its own, with its time and peak
memory. ``--markdown`` writes docs/networks.md. ``--plans N`` executes N random plans of each of the papers' networks
on a small input: every merge is proved in float64, the merged network is compared with the linearised one in float32,
and, of the first ``--exports`` plans, the exported ONNX in ONNX Runtime with PyTorch.

    python benchmarks/networks.py [--markdown] [--plans 10 [--exports 1]] [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trt_layermerge.blocks.candidates import Limits, choices_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.verification import verify_engine
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.proof import prove_network
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.inputs import batched_shapes, examples
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime

ROOT = Path(__file__).parents[1]
EXAMPLE = "examples/fashion_mnist/model.py"
PAGE = ROOT / "docs" / "networks.md"
INSPECT = "from trt_layermerge.cli.main import main; main()"

PAPERS = {
    "ResNet-20 (CIFAR form)": (f"{EXAMPLE}:resnet20", (1, 28, 28)),
    "ResNet-56 (CIFAR form)": (f"{EXAMPLE}:resnet56", (1, 28, 28)),
    "ResNet-34": ("torchvision:resnet34", (3, 64, 64)),
    "ResNet-50": ("torchvision:resnet50", (3, 64, 64)),
    "MobileNetV2-1.0": ("torchvision:mobilenet_v2", (3, 64, 64)),
    "MobileNetV2-1.4": ("timm:mobilenetv2_140", (3, 64, 64)),
    "VGG-16": ("torchvision:vgg16", (3, 32, 32)),
    "VGG-16 BN": ("torchvision:vgg16_bn", (3, 32, 32)),
    "VGG-19": ("torchvision:vgg19", (3, 32, 32)),
    "VGG-19 BN": ("torchvision:vgg19_bn", (3, 32, 32)),
    "DDPM U-Net (CIFAR-10)": ("examples/ddpm_cifar10/model.py:unet", (3, 32, 32)),
}
"""Spec, and the input that random plans are tried on."""

BROUGHT = {
    name.partition(":")[2]: name
    for name in (
        "torchvision:densenet121",
        "torchvision:googlenet",
        "timm:efficientnet_lite0",
        "timm:tf_efficientnet_lite0",
        "timm:repvgg_a0",
        "timm:mobilenetv3_large_100",
        "timm:darknet53",
        "timm:dla34",
        "timm:hrnet_w18_small",
        "timm:convnext_tiny",
        "timm:regnety_004",
        "timm:resnet50d",
        "timm:resnetv2_50",
        "timm:efficientnet_b0",
    )
}

LIMITS = Limits(max_kernel=5, max_layers=6)
"""Of random plans, so that merges of thousands of channels fit in memory in float64."""

COLUMNS = (
    "network",
    "layers",
    "chains",
    "skips",
    "choices",
    "signatures",
    "largest exact merge",
    "why chains end (how often)",
    "time",
    "memory",
)


HEAD = """# Networks

What `trt-layermerge inspect` finds in the networks of the papers and in others that people bring. Written by
`python benchmarks/networks.py --markdown`, not by hand. Time and memory are those of the whole command on one core.

A *layer* is a convolution of a chain with its norm and activation, or an average pooling or a norm between
convolutions; what a skip leads through is no layer. In DDPM's U-Net group norms stand before convolutions, and go or
move when those are merged. The largest exact merge is that of most layers into one kernel of at most 7x7: how many,
which block (chain:start-end), and the kernel. Every chain ends once, at the network's head at the latest; a convolution
that is in no chain has its reason too. Why a chain ends is said in words, with the operator that stands there in
brackets.
"""


@dataclass(frozen=True)
class Row:
    """What ``inspect`` says of a network, and what it took.

    Attributes:
        name: For people.
        found: The JSON of ``inspect``.
        seconds: Of the whole command.
        mebibytes: Peak memory of its process.
    """

    name: str
    found: dict[str, Any]
    seconds: float
    mebibytes: float

    def cells(self) -> tuple[str, ...]:
        """As the columns of the table."""
        layers, largest = self.found["layers"], self.found["largest_merge"]
        merge = "none"
        if largest:
            kernel = re.search(r"k(\d+x\d+)", largest["into"])
            merge = f"{largest['convolutions']} ({largest['block']}) into {kernel[1] if kernel else '?'}"
        return (
            self.name,
            str(len(layers)),
            str(len({layer["chain"] for layer in layers})),
            str(len(self.found["skips"])),
            str(self.found["choices"]),
            str(self.found["signatures"]),
            merge,
            "; ".join(f"{reason} ({count})" for reason, count in self.reasons().most_common()),
            f"{self.seconds:.1f} s",
            f"{self.mebibytes / 1024:.1f} GiB",
        )

    def reasons(self) -> Counter[str]:
        """Why chains end, without the names of modules."""
        named = re.compile(r"\b(convolution|[A-Z]\w+) [\w.]+")
        return Counter(_once(named.sub(r"\1", item["reason"])) for item in self.found["breaks"])


def _once(reason: str) -> str:
    """A reason in which nothing is listed twice."""
    return " and ".join(dict.fromkeys(reason.split(" and ")))


def inspect(name: str, spec: str) -> Row:
    """Run ``inspect --json`` in a process of its own, on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", INSPECT, "inspect", spec, "--json"], stdout=output, cwd=ROOT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"inspect {spec} ended with exit code {process.returncode}")
        output.seek(0)
        return Row(name, json.load(output), seconds, usage.ru_maxrss / 1024)


EXACT = (Kind.KEEP, Kind.MERGE, Kind.IDENTITY)
"""What can be proved: a fit is not equal to what it replaces."""


def random_plan(network: Network, generator: random.Random, kinds: Collection[Kind] = EXACT) -> list[Choice]:
    """A plan that tiles all chains with choices of these kinds, each block as likely as any other."""
    first = [0, *accumulate(map(len, network.chains))]  # numbers of the layers, all chains laid end to end
    starting: dict[int, dict[tuple[int, Block], list[Choice]]] = {}
    for choice in choices_of(network, LIMITS):
        if choice.kind in kinds:
            block = choice.block
            end = first[block.chain if block.end_chain is None else block.end_chain] + block.end
            starting.setdefault(first[block.chain] + block.start, {}).setdefault((end, block), []).append(choice)
    plan, layer = [], 0
    while layer < first[-1]:
        ends = starting[layer]
        chosen = generator.choice(sorted(ends))
        plan.append(generator.choice(ends[chosen]))
        layer = chosen[0]
    return plan


def randomise_norms(module: nn.Module) -> None:
    """Statistics and scales as training leaves them, so that folding a norm does something."""
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            nn.init.uniform_(part.weight, 0.5, 1.0)
            nn.init.normal_(part.bias, 0, 0.1)
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.0)
                nn.init.normal_(part.bias, 0, 0.1)


def check_plan(network: Network, plan: list[Choice], *, export: bool) -> tuple[float, float, float | None]:
    """Execute a plan; any error above its tolerance raises.

    Returns:
        The worst block's error in float64, the networks' in float32, and ONNX Runtime's against PyTorch if exported.
    """
    result = execute(network, plan, [])
    x = examples(network.inputs, batch=2)
    proof = prove_network(result.linearised, result.merged, x, result.proofs)
    engine_error = None
    if export:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            folded = fold_norms(result.merged)
            export_onnx(folded, network.inputs, path)
            shapes = batched_shapes(network.inputs, batch=2)
            engine = get_runtime("onnxruntime").build(path, BuildOptions(), shapes)
            engine_error, _ = verify_engine(engine, folded, x)
    return proof.worst_block, proof.end_to_end, engine_error


def check_plans(spec: str, shape: tuple[int, ...], plans: int, exports: int) -> Iterator[str]:
    """Random plans of one network: a line for each."""
    torch.manual_seed(0)
    network = load_network(str(ROOT / spec) if spec.startswith("examples/") else spec, None, shape)
    randomise_norms(network.module)
    generator = random.Random(0)
    for number in range(plans):
        plan = random_plan(network, generator)
        block, end_to_end, engine = check_plan(network, plan, export=number < exports)
        kinds = Counter(str(choice.kind) for choice in plan)
        counts = ", ".join(f"{kinds[kind]} {kind}" for kind in ("keep", "merge", "identity"))
        exported = "" if engine is None else f", ONNX Runtime {engine:.0e}"
        yield f"plan {number + 1} ({counts}): blocks {block:.0e}, network {end_to_end:.0e}{exported}"


def markdown(rows: list[Row]) -> str:
    """The page for people."""
    lines = [HEAD, "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the rows, write the page, or check plans."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--markdown", action="store_true", help="write docs/networks.md")
    parser.add_argument("--plans", type=int, default=0, help="random plans of each of the papers' networks")
    parser.add_argument("--exports", type=int, default=1, help="of which so many are exported")
    parser.add_argument("--only", help="names of networks must contain this")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.plans:
        for name, (spec, shape) in PAPERS.items():
            if (given.only or "") in name:
                for line in check_plans(spec, shape, given.plans, given.exports):
                    print(f"{name} {'x'.join(map(str, shape))} {line}", flush=True)
        return
    rows = []
    for name, spec in ({name: spec for name, (spec, _) in PAPERS.items()} | BROUGHT).items():
        if (given.only or "") in name:
            rows.append(inspect(name, spec))
            print(*rows[-1].cells(), sep=" | ", flush=True)
    if given.markdown:
        PAGE.write_text(markdown(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
