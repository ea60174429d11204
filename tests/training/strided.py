"""Trains networks that oneDNN's fault would meet, on this processor or, with ONEDNN_MAX_CPU_ISA, as on another one.

Prints the largest error of a gradient, relative to the largest one, as float64 has it: oneDNN computes nothing of that.

Usage: ``python strided.py FOLDER``
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification

Layer = tuple[nn.Module, tuple[int, ...]]
"""A layer and the shape of its batch."""

LAYERS: list[Layer] = [
    (nn.Conv2d(2, 1, 1, stride=2), (2, 2, 4, 6)),  # about the smallest
    (nn.Conv2d(4, 4, 1, stride=2), (8, 4, 8, 8)),  # the one of the random networks
    (nn.Conv2d(7, 24, 1, stride=(1, 3), bias=False), (8, 7, 9, 18)),
    (nn.Conv2d(12, 16, 1, stride=2), (2, 12, 112, 112)),  # AVX-512 as well
    (nn.ConvTranspose2d(6, 6, 1, stride=2, output_padding=1), (2, 6, 19, 18)),
]


class Scores(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).flatten(1)
        return y[:, : y.shape[1] // 3 * 3].unflatten(1, (3, -1)).mean(2)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    worst = 0.0
    for number, (layer, shape) in enumerate(LAYERS):
        torch.manual_seed(number)
        images, labels = torch.randn(shape), torch.randint(0, 3, shape[:1])
        data = TensorDataset(images, labels)
        trained, exact = Scores(layer), copy.deepcopy(Scores(layer)).double()
        task = Classification("strided", data, data, batch_size=len(labels), held_out=0, calibration=0)
        recipe = Recipe(epochs=1, lr=1.0, warmup=0.0, weight_decay=0.0, momentum=0.0, nesterov=False)
        before = copy.deepcopy(trained.state_dict())
        fine_tune(trained, task, recipe, checkpoint=folder / f"{number}.checkpoint")
        F.cross_entropy(exact(images.double()), labels).backward()
        exacts = {name: parameter.grad for name, parameter in exact.named_parameters() if parameter.grad is not None}
        scale = max(float(gradient.abs().max()) for gradient in exacts.values())
        for name, gradient in exacts.items():
            step = (before[name] - trained.state_dict()[name]).double()
            worst = max(worst, float((step - gradient).abs().max()) / scale)
    print(worst)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
