"""Fashion-MNIST for networks that were made for photographs: three equal channels, enlarged from 28x28 to 64x64.

A task and networks for it, to be named on the command line: ``--task benchmarks/fashion64.py`` and
``benchmarks/fashion64.py:mobilenet_v2``. Batches are enlarged after their augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.training.load_task import load_task
from trt_layermerge.training.task import Classification

INPUT_SHAPE = (3, 64, 64)
CLASSES = 10
BATCH = 256
SMALL = Path(__file__).parents[1] / "examples" / "fashion_mnist" / "task.py"


@dataclass(frozen=True)
class Enlarged(Classification):
    """A task of small images, whose batches are enlarged as a whole."""

    @staticmethod
    def enlarged(images: Tensor) -> Tensor:
        """Images ``[n, 1, 28, 28]`` as ``[n, 3, 64, 64]``."""
        size = INPUT_SHAPE[1:]
        return F.interpolate(images, size, mode="bilinear", align_corners=False).expand(-1, INPUT_SHAPE[0], -1, -1)

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented before they are enlarged."""
        batches = super().training_batches(seed=seed, epoch=epoch, first_step=first_step)
        return ((self.enlarged(images), labels) for images, labels in batches)

    def calibration_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """As they are."""
        return ((self.enlarged(images), labels) for images, labels in super().calibration_batches())

    def held_out_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """As they are."""
        return ((self.enlarged(images), labels) for images, labels in super().held_out_batches())

    def test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """As they are."""
        return ((self.enlarged(images), labels) for images, labels in super().test_batches())


def task() -> Classification:
    """The example's images and splits, enlarged."""
    small = load_task(SMALL)
    assert isinstance(small, Classification)
    given = {one.name: getattr(small, one.name) for one in fields(small)}
    return Enlarged(**given | {"name": "Fashion-MNIST at 64x64", "batch_size": BATCH})


def mobilenet_v2() -> nn.Module:
    """MobileNetV2-1.0 (arXiv 1801.04381): 2.2 M parameters, 26 M multiply-accumulates for one image."""
    from torchvision.models import mobilenet_v2 as network

    return network(weights=None, num_classes=CLASSES)


def mobilenet_v3_small() -> nn.Module:
    """MobileNetV3-Small (arXiv 1905.02244), which has squeeze-and-excitation: 1.5 M parameters."""
    from timm import create_model

    return create_model("mobilenetv3_small_100", num_classes=CLASSES)
