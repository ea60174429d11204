"""Networks that no library here makes without a download, written in short: dense prediction, detection, speech.

``trt-layermerge inspect benchmarks/zoo.py:yolo`` reads one of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import segmentation

INPUT_SHAPE = (3, 128, 128)


def unit(i: int, o: int, k: int = 3, s: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with its norm and activation, as detectors have it."""
    return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o), nn.SiLU())


class Split(nn.Module):
    """One half goes through residual pairs, and all that is made on the way is concatenated (YOLOv8's C2f)."""

    def __init__(self, i: int, o: int, repeats: int, *, residual: bool) -> None:
        super().__init__()
        self.residual, half = residual, o // 2
        self.first, self.last = unit(i, o, 1), unit(half * (2 + repeats), o, 1)
        self.pairs = nn.ModuleList(nn.Sequential(unit(half, half), unit(half, half)) for _ in range(repeats))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for pair in self.pairs:
            made = pair(parts[-1])
            parts.append(parts[-1] + made if self.residual else made)
        return self.last(torch.cat(parts, 1))


class Pyramid(nn.Module):
    """Max poolings of growing windows, concatenated (SPPF)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = unit(channels, channels // 2, 1), unit(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.last(torch.cat(parts, 1))


class Yolo(nn.Module):
    """A detector with three outputs, of YOLOv8n's shape: split backbone, pyramid, two-way neck, decoupled heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(unit(3, 16, s=2), unit(16, 32, s=2), Split(32, 32, 1, residual=True))
        self.c3 = nn.Sequential(unit(32, 64, s=2), Split(64, 64, 2, residual=True))
        self.c4 = nn.Sequential(unit(64, 128, s=2), Split(128, 128, 2, residual=True))
        self.c5 = nn.Sequential(unit(128, 256, s=2), Split(256, 256, 1, residual=True), Pyramid(256))
        self.up4, self.up3 = Split(384, 128, 1, residual=False), Split(192, 64, 1, residual=False)
        self.down4, self.down5 = unit(64, 64, s=2), unit(128, 128, s=2)
        self.out4, self.out5 = Split(192, 128, 1, residual=False), Split(384, 256, 1, residual=False)
        self.boxes = nn.ModuleList(self._head(channels, 64) for channels in (64, 128, 256))
        self.classes = nn.ModuleList(self._head(channels, 80) for channels in (64, 128, 256))

    @staticmethod
    def _head(i: int, o: int) -> nn.Sequential:
        return nn.Sequential(unit(i, 64), unit(64, 64), nn.Conv2d(64, o, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        c3 = self.c3(self.stem(x))
        c4 = self.c4(c3)
        c5 = self.c5(c4)
        p4 = self.up4(torch.cat([F.interpolate(c5, scale_factor=2.0), c4], 1))
        p3 = self.up3(torch.cat([F.interpolate(p4, scale_factor=2.0), c3], 1))
        n4 = self.out4(torch.cat([self.down4(p3), p4], 1))
        n5 = self.out5(torch.cat([self.down5(n4), c5], 1))
        heads = zip((p3, n4, n5), self.boxes, self.classes, strict=True)
        return tuple(torch.cat([boxes(level), classes(level)], 1) for level, boxes, classes in heads)


class UNet(nn.Module):
    """Four levels of two convolutions, transposed convolutions up, concatenations (Ronneberger et al., 2015)."""

    WIDTHS = (16, 32, 64, 128)

    def __init__(self) -> None:
        super().__init__()
        before = (3, *self.WIDTHS[:-1])
        self.down = nn.ModuleList(self._level(i, o) for i, o in zip(before, self.WIDTHS, strict=True))
        pairs = list(zip(self.WIDTHS[:-1], self.WIDTHS[1:], strict=True))
        self.widen = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, 2) for i, o in pairs)
        self.up = nn.ModuleList(self._level(2 * i, i) for i, _ in pairs)
        self.head = nn.Conv2d(self.WIDTHS[0], 2, 1)

    @staticmethod
    def _level(i: int, o: int) -> nn.Sequential:
        first = (nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
        return nn.Sequential(*first, nn.Conv2d(o, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        levels = []
        for number, level in enumerate(self.down):
            x = level(F.max_pool2d(x, 2) if number else x)
            levels.append(x)
        for level, widen, beside in reversed(list(zip(self.up, self.widen, levels[:-1], strict=True))):
            x = level(torch.cat([beside, widen(x)], 1))
        return self.head(x)


class SuperResolution(nn.Module):
    """Residual blocks without norms, a long skip, and pixels shuffled up (EDSR)."""

    def __init__(self, channels: int = 32, blocks: int = 8) -> None:
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
            )
            for _ in range(blocks)
        )
        self.up = nn.Sequential(nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2))
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = y = self.head(x)
        for block in self.body:
            y = y + 0.1 * block(y)
        return self.last(self.up(x + self.tail(y)))


class KeywordSpotting(nn.Module):
    """Depthwise-separable convolutions over time and frequency (DS-CNN; Zhang et al., 2017)."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        norm = (nn.BatchNorm2d(channels), nn.ReLU())
        blocks = [nn.Sequential(nn.Conv2d(3, channels, (10, 4), 2, (5, 1), bias=False), *norm)]
        for _ in range(4):
            deep = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
            blocks += [nn.Sequential(deep, nn.BatchNorm2d(channels), nn.ReLU())]
            blocks += [nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())]
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(channels, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean((2, 3)))


def yolo() -> nn.Module:
    return Yolo()


def unet() -> nn.Module:
    return UNet()


def edsr() -> nn.Module:
    return SuperResolution()


def ds_cnn() -> nn.Module:
    return KeywordSpotting()


def lraspp() -> nn.Module:
    return segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)


def deeplab() -> nn.Module:
    return segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None)


def fcn() -> nn.Module:
    return segmentation.fcn_resnet50(weights=None, weights_backbone=None)
