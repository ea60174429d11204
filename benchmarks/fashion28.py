"""The example's images and splits in batches of 256: a GPU takes about as long for them as for half of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trt_layermerge.training.load_task import load_task
from trt_layermerge.training.task import Classification

BATCH = 256
EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist" / "task.py"


def task() -> Classification:
    """Fashion-MNIST as it is."""
    small = load_task(EXAMPLE)
    assert isinstance(small, Classification)
    return replace(small, batch_size=BATCH)
