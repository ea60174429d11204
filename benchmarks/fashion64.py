"""Fashion-MNIST for networks that were made for photographs: three equal channels, enlarged from 28x28 to 64x64.

A task and networks for it, to be named on the command line: ``--task benchmarks/fashion64.py`` and
``benchmarks/fashion64.py:mobilenet_v2``. Images are enlarged when they are read; augmentation comes before that.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.training.load_task import load_task
from trt_layermerge.training.task import Classification

INPUT_SHAPE = (3, 64, 64)
CLASSES = 10
SMALL = Path(__file__).parents[1] / "examples" / "fashion_mnist" / "task.py"


def enlarged(images: Tensor) -> Tensor:
    """Images ``[n, 1, 28, 28]`` as ``[n, 3, 64, 64]``."""
    size = INPUT_SHAPE[1:]
    return F.interpolate(images, size, mode="bilinear", align_corners=False).expand(-1, INPUT_SHAPE[0], -1, -1)


def task() -> Classification:
    """The example's images and splits, enlarged."""
    small = load_task(SMALL)
    assert isinstance(small, Classification) and small.augment is not None
    augment = small.augment

    def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
        return enlarged(augment(images, generator))

    return replace(
        small,
        name="Fashion-MNIST at 64x64",
        transform=lambda image: enlarged(image[None])[0],
        random_transform=lambda image: image,  # a batch is enlarged at once, after its augmentation
        augment=augmented,
    )


def mobilenet_v2() -> nn.Module:
    """MobileNetV2-1.0 (arXiv 1801.04381): 2.2 M parameters, 26 M multiply-accumulates for one image."""
    from torchvision.models import mobilenet_v2 as network

    return network(weights=None, num_classes=CLASSES)


def mobilenet_v3_small() -> nn.Module:
    """MobileNetV3-Small (arXiv 1905.02244), which has squeeze-and-excitation: 1.5 M parameters."""
    from timm import create_model

    return create_model("mobilenetv3_small_100", num_classes=CLASSES)
