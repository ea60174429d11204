"""VGG-16 with batch norms at a quarter of its width, for 28x28 grey images; Simonyan and Zisserman, arXiv 1409.1556."""

from __future__ import annotations

from torch import nn

INPUT_SHAPE = (1, 28, 28)

STAGES = ((16, 16), (32, 32), (64, 64, 64), (128, 128, 128), (128, 128, 128))
"""Configuration D of the paper's table 1, channels divided by four."""


def vgg16() -> nn.Sequential:
    """13 convolutions and one linear layer: 0.93 M parameters, 20 M multiply-accumulates for one image."""
    layers: list[nn.Module] = []
    channels = INPUT_SHAPE[0]
    for number, stage in enumerate(STAGES):
        if number:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # 28, 14, 7, 4, 2
        for width in stage:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
