"""A network, a task and a recipe so small that a training run takes milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification

torch.set_num_threads(1)


def tiny_model(seed: int = 0) -> nn.Module:
    """Has all that a resumed run could get wrong: a norm's running statistics, dropout, a bias, a 4-d kernel."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 3),
    )


def noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """An augmentation."""
    return images + 0.1 * torch.randn(images.shape, generator=generator)


def dataset(samples: int) -> TensorDataset:
    """Images ``[2, 4, 4]`` whose label, 0..2, is learnable: it says how bright they are."""
    generator = torch.Generator().manual_seed(samples)
    labels = torch.randint(0, 3, (samples,), generator=generator)
    images = torch.randn(samples, 2, 4, 4, generator=generator) + (labels - 1).view(-1, 1, 1, 1)
    return TensorDataset(images, labels)


def tiny_task() -> Classification:
    """Five steps an epoch."""
    return Classification("tiny", dataset(56), dataset(20), batch_size=8, held_out=13, calibration=12, augment=noise)


RECIPE = Recipe(epochs=2, lr=0.1, warmup=0.3, checkpoint_seconds=3600, seed=5)
STEPS = 10


@pytest.fixture(scope="session")
def make_model() -> Callable[[], nn.Module]:
    """The same weights at each call."""
    return tiny_model


@pytest.fixture(scope="session")
def task() -> Classification:
    """The tiny task."""
    return tiny_task()


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Ten steps, and no checkpoint but at the end of an epoch."""
    return RECIPE
