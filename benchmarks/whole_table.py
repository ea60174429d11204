"""How long the whole importance table of a network takes, every candidate choice, by the estimator ``fit``.

Fashion-MNIST, resized and with three equal channels, through torchvision's architecture with random weights: what a row
costs does not depend on what the weights are. Interrupted, it resumes; the figures are sums over all rows, and the
processor seconds of this process alone, which a machine with other work to do does not stretch.

    python benchmarks/whole_table.py --network mobilenet_v2 --size 64
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.importance.filling import Estimation, measure, table_key
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.network.network import load_network
from trt_layermerge.training.load import load_task
from trt_layermerge.training.task import Classification

GOAL_MINUTES = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--output", type=Path, default=Path("runs/whole_table"))
    given = parser.parse_args()
    torch.manual_seed(0)  # of the random weights: a resumed run needs the same ones
    network = load_network(f"torchvision:{given.network}", input_shape=(3, given.size, given.size))
    task, how = resized(given.size), Estimation()
    given.output.mkdir(parents=True, exist_ok=True)
    table = ImportanceTable.open(given.output / f"{given.network}.jsonl", table_key(network, task, how))
    began, spent, known = time.monotonic(), time.process_time(), len(table)

    def progress(done: int, total: int, label: str, *, share: float | None = None) -> None:
        cpu = time.process_time() - spent
        print(f"\r{done} of {total}, {cpu:.0f} s of processor  {label:<40}", end="", file=sys.stderr, flush=True)

    measure(network, choices_of(network), task, table, how, progress)
    minutes = sum(row.seconds for row in table) / 60
    print(f"\n{given.network} at {given.size}x{given.size}, {torch.get_num_threads()} thread(s): {len(table)} rows")
    print(f"all rows {minutes:.1f} min (goal: {GOAL_MINUTES})")
    print(f"this run {len(table) - known} rows, {(time.monotonic() - began) / 60:.1f} min, ", end="")
    print(f"{(time.process_time() - spent) / 60:.1f} min of processor")


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
