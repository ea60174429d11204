"""Long training of a denoising network: one that was stopped goes on as if it had not been."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from graphed_denoising import GraphedTraining

from trt_layermerge.network.device import CPU
from trt_layermerge.training.denoising import Denoising
from trt_layermerge.training.task import Classification


class Timed(nn.Module):
    """One convolution that is told the time step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        return self.layer(images) + times.view(-1, 1, 1, 1) / 1000


def begun(model: nn.Module) -> GraphedTraining:
    images = TensorDataset(torch.linspace(-1, 1, 16 * 36).view(16, 1, 6, 6), torch.zeros(16, dtype=torch.int64))
    task = Denoising(Classification("ramp", images, images, batch_size=4, held_out=4, calibration=4))
    return GraphedTraining(model, None, task, Namespace(batch=4, lr=0.01, average=0.9, heaviest=5.0, device=CPU))


def test_going_on_from_what_was_kept_ends_where_an_uninterrupted_training_does() -> None:
    torch.manual_seed(0)
    run = begun(Timed())
    start = [value.clone() for value in run.averages]
    for number in range(3):
        run.go(number, number / 6)
    kept, random = [value.clone() for value in run.kept()], torch.get_rng_state()
    for number in range(3, 6):
        run.go(number, number / 6)

    later = begun(Timed())
    later.go_on(kept)
    torch.set_rng_state(random)
    for number in range(3, 6):
        later.go(number, number / 6)
    assert all(map(torch.equal, run.kept(), later.kept()))
    assert not any(map(torch.equal, run.averages, start))
    assert set(later.averaged()) == {"layer.weight", "layer.bias"}
