"""How long the whole importance table of a network takes by the estimator ``fit``, and how much memory.

Every candidate choice is measured.

Fashion-MNIST, resized and with three equal channels, through torchvision's architecture with random weights: what a row
costs does not depend on what the weights are. With ``--memory-limit`` the table is made twice, without the limit and
with it, each in a process of its own, part by part in turns, so that both see the same minutes of the machine.
Interrupted, it resumes; the figures are sums over all parts, and the processor seconds are of these processes alone,
which a machine with other work to do does not stretch. Peaks are those of resident memory, as the system counts it.

    python benchmarks/whole_table.py --network mobilenet_v2 --size 64 --memory-limit 4
    python benchmarks/whole_table.py --network mobilenet_v2 --size 64 --memory-limit 4 --every 10 --parts 4
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.files import write_json
from trt_layermerge.importance.filling import Estimation, measure, table_key
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.resources.memory import MemoryLimit
from trt_layermerge.training.load_task import load_task
from trt_layermerge.training.task import Classification

GOAL_MINUTES = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--output", type=Path, default=Path("runs/whole_table"))
    parser.add_argument("--memory-limit", type=float, metavar="GIB", help="make the table with this limit as well")
    parser.add_argument("--only-limited", action="store_true", help="make it with the limit alone")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="of the choices, every N-th")
    parser.add_argument("--parts", type=int, default=1, help="in so many parts")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)  # of a process that makes one
    given = parser.parse_args()
    if given.part is not None:
        make_part(given)
        return
    limits = [given.memory_limit] if given.only_limited else list(dict.fromkeys([None, given.memory_limit]))
    for part in range(given.parts):
        for limit in limits:
            told = [*sys.argv[1:], "--part", str(part), "--memory-limit", "0" if limit is None else str(limit)]
            subprocess.run([sys.executable, __file__, *told], check=True)
    show(given, limits)


def folder_of(given: Namespace, limit: float | None) -> Path:
    """Where tables of a network lie, and what they took."""
    share = "" if given.every == 1 and given.parts == 1 else f"-every{given.every}-parts{given.parts}"
    folder = given.output / f"{given.network}-{given.size}{share}" / ("free" if limit is None else f"{limit:g}GiB")
    folder.mkdir(parents=True, exist_ok=True)
    return Path(folder)


def make_part(given: Namespace) -> None:
    """Fill one part's table, and keep what this process takes beside it."""
    torch.manual_seed(0)  # of the random weights: a resumed run needs the same ones
    network = load_network(f"torchvision:{given.network}", input_shape=(3, given.size, given.size))
    task, limit = resized(given.size), given.memory_limit or None  # the last one that is told
    how = Estimation() if limit is None else Estimation(memory=MemoryLimit(int(limit * (1 << 30))))
    folder, began, spent = folder_of(given, limit), time.monotonic(), time.process_time()
    table = ImportanceTable.open(folder / f"{given.part}.jsonl", table_key(network, task, how))

    def progress(done: int, total: int, label: str, *, share: float | None = None) -> None:
        cpu = time.process_time() - spent
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        took = {"cpu": cpu, "wall": time.monotonic() - began, "peak": peak, "threads": torch.get_num_threads()}
        write_json(folder / f"{given.part}-{os.getpid()}.took.json", took)
        print(
            f"\r{done} of {total}, {cpu:.0f} s of processor, {peak / 2**30:.2f} GiB  {label:<40}",
            end="",
            file=sys.stderr,
        )

    measure(network, wanted(network, given), task, table, how, progress)
    print(file=sys.stderr)


def wanted(network: Network, given: Namespace) -> list[Choice]:
    """The choices of a part: neighbours, which share equations."""
    choices = sorted((one for one in choices_of(network) if one.kind is not Kind.KEEP), key=lambda one: one.block)
    some = choices[:: given.every]
    return some[given.part * len(some) // given.parts : (given.part + 1) * len(some) // given.parts]


def show(given: Namespace, limits: list[float | None]) -> None:
    """Print what the tables took."""
    sums = []
    for limit in limits:
        folder = folder_of(given, limit)
        took = [json.loads(path.read_text()) for path in folder.glob("*.took.json")]
        rows = sum(len(path.read_text().splitlines()) - 1 for path in folder.glob("*.jsonl"))
        cpu, wall = (sum(one[name] for one in took) / 60 for name in ("cpu", "wall"))
        peak = max((one["peak"] for one in took), default=0)
        sums.append((cpu, wall, peak))
        print(
            f"{given.network} at {given.size}x{given.size}, {'no limit' if limit is None else f'limit {limit:g} GiB'}, "
            f"{torch.get_num_threads()} thread(s): {rows} rows, {cpu:.1f} min of processor, {wall:.1f} min "
            f"(goal: {GOAL_MINUTES}), peak {peak / 2**30:.2f} GiB, {peak / 1e9:.2f} GB, in {len(took)} process(es)"
        )
    if len(sums) == 2:
        (cpu, wall, peak), (with_cpu, with_wall, with_peak) = sums
        print(
            f"with the limit: {with_cpu / cpu:.2f} of the processor time, {with_wall / wall:.2f} of the time, ", end=""
        )
        print(f"{with_peak / peak:.2f} of the memory")


def resized(size: int) -> Classification:
    """The example's images, enlarged, grey in three channels; few of them are needed."""
    example = load_task(Path("examples/fashion_mnist/task.py"))
    batches = list(example.held_out_batches())

    def enlarged(images: Tensor) -> Tensor:
        return F.interpolate(images, (size, size), mode="bilinear").expand(-1, 3, -1, -1)

    images = torch.cat([enlarged(inputs) for inputs, _ in batches[:16]]).contiguous()
    data = TensorDataset(images, torch.cat([labels for _, labels in batches[:16]]))
    return Classification(f"Fashion-MNIST {size}x{size}", data, data, held_out=1024, calibration=512)


if __name__ == "__main__":
    main()
