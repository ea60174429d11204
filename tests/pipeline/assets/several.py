"""Networks of one, two and three outputs, in a tensor, a tuple and a dictionary; and of several rows a sample."""

from __future__ import annotations

import torch
from torch import nn

INPUT_SHAPE = (3, 12, 12)


class Several(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for channels in (3, 8, 8):
            layers += [nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
        self.body, self.classes, self.boxes = nn.Sequential(*layers), nn.Linear(8, 5), nn.Linear(8, 4)
        self.map, self.outputs = nn.Conv2d(8, 2, 1), outputs
        self._see_colours()

    def _see_colours(self) -> None:
        """Have norms know what they will see, as those of a trained network do."""
        with torch.no_grad():
            for _ in range(20):
                self.body(torch.rand(32, 3, 1, 1) + 0.1 * torch.randn(32, 3, 12, 12))
        self.body.eval()

    def forward(self, x: torch.Tensor) -> object:
        features = self.body(x)
        pooled = features.mean((2, 3))
        logits = 3 * self.classes(pooled)
        if self.outputs == 1:
            return logits
        if self.outputs == 2:
            return logits, self.map(features)
        return {"scores": logits.softmax(1), "boxes": 100 * self.boxes(pooled), "map": self.map(features)}


class Frames(Several):
    """Of each colour of an image logits, ``[3 * batch, 5]``, and of the image one number; or the colours first."""

    def __init__(self, *, in_turn: bool = False) -> None:
        super().__init__(2)
        self.in_turn = in_turn

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames = x.transpose(0, 1) if self.in_turn else x
        features = self.body(frames.reshape(-1, 1, 12, 12).expand(-1, 3, 12, 12)).mean((2, 3))
        return self.classes(features), self.boxes(x.mean((2, 3)) @ x.new_ones(3, 8))


def frames() -> nn.Module:
    return Frames()


def frames_in_turn() -> nn.Module:
    return Frames(in_turn=True)


def one() -> nn.Module:
    return Several(1)


def two() -> nn.Module:
    return Several(2)


def three() -> nn.Module:
    return Several(3)
