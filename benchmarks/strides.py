"""What it costs that training looks at every call of torch for strided 1x1 convolutions.

Trains the demo's network with its teacher, on random images, each step in turn with the guard of ``strides.py`` and
without; seconds are the processor's, for other programs run, too. No layer of it is one that the guard changes: what
is measured is the looking.

    python benchmarks/strides.py --steps 100
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils.data import TensorDataset

from trt_layermerge.training import loop
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.strides import Unstrided
from trt_layermerge.training.task import Classification

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "fashion_mnist"))
from model import resnet20

BATCH = 128


class Turns:
    """Guards every second step."""

    def __init__(self) -> None:
        self.guarded, self.since = True, 0.0
        self.seconds: dict[bool, list[float]] = {True: [], False: []}

    def guard(self) -> AbstractContextManager[Any]:
        """Of the step that comes."""
        return Unstrided() if self.guarded else nullcontext()

    def progress(self, done: int, total: int, label: str, *, share: float | None = None) -> None:
        """Note how long a step took."""
        now = time.process_time()
        if done > 4:  # the first ones make oneDNN's kernels
            self.seconds[self.guarded].append(now - self.since)
        self.guarded, self.since = not self.guarded, now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = resnet20()
    images = TensorDataset(torch.randn(BATCH * 8, 1, 28, 28), torch.randint(0, 10, (BATCH * 8,)))
    task = Classification("random", images, images, batch_size=BATCH, held_out=0, calibration=0)
    recipe = Recipe(steps=given.steps, lr=0.001, distillation=0.9, checkpoint_seconds=1e9)
    turns = Turns()
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(loop, "Unstrided", turns.guard):
        checkpoint, teacher = Path(folder) / "run.checkpoint", copy.deepcopy(network)
        loop.fine_tune(network, task, recipe, checkpoint=checkpoint, teacher=teacher, progress=turns.progress)
    guarded, bare = (1000 * statistics.median(turns.seconds[which]) for which in (True, False))
    print(f"median step: {guarded:.1f} ms with the guard, {bare:.1f} ms without: {guarded / bare:.3f} times")


if __name__ == "__main__":
    main()
