"""A denoising U-Net in small: every special case of DDPM's, in 25 thousand parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INPUTS = {"sample": (3, 8, 8), "timestep": 100}


class Residual(nn.Module):
    """Norm, activation, convolution, shift by the time; norm, activation, convolution; plus a shortcut."""

    def __init__(self, inputs: int, outputs: int, time: int = 16) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(2, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs)
        self.norm2, self.conv2 = nn.GroupNorm(2, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.dropout = nn.Dropout(0.0)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = y + self.time(F.silu(time))[:, :, None, None]
        y = self.conv2(self.dropout(F.silu(self.norm2(y))))
        return (self.shortcut(x) + y) / 1.0


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.GroupNorm(2, channels), nn.Linear(channels, 3 * channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        y = F.scaled_dot_product_attention(*self.qkv(tokens)[:, None].chunk(3, -1))[:, 0]  # one head
        return x + y.transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
    """Takes images and whole-numbered time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(16, 16)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.down = Residual(8, 8)
        self.downsample = nn.Conv2d(8, 8, 3, stride=2)
        self.deep, self.attention, self.deeper = Residual(8, 12), Attention(12), Residual(12, 12)
        self.upsample = nn.Conv2d(12, 12, 3, padding=1)
        self.up, self.top = Residual(20, 8), Residual(8, 8)
        self.norm, self.last = nn.GroupNorm(2, 8), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        angles = timestep[:, None].float() * torch.exp(-torch.arange(8.0))
        time = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        wide = self.down(self.first(sample), time)
        y = self.deep(self.downsample(F.pad(wide, (0, 1, 0, 1))), time)
        y = self.deeper(self.attention(y), time)
        y = self.upsample(F.interpolate(y, scale_factor=2.0))
        y = self.top(self.up(torch.cat([y, wide], 1), time), time)
        return self.last(F.silu(self.norm(y)))


def unet() -> UNet:
    """With weights, norms too, that differ from each other."""
    torch.manual_seed(0)
    module = UNet()
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
    return module.eval()
