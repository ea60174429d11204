"""Three convolutions that take images of 8x8 and their time steps, as real numbers."""

import torch
from torch import nn
from torch.nn import functional as F

INPUTS = {"sample": (3, 8, 8), "timestep": ()}


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 8, 3, padding=1)
        self.three = nn.Conv2d(8, 3, 3, padding=1)
        self.time = nn.Linear(1, 8)

    def forward(self, sample, timestep):
        x = F.silu(self.one(sample))
        x = F.silu(self.two(x) + self.time(timestep[:, None] / 100)[:, :, None, None])
        return self.three(x)


def denoiser():
    torch.manual_seed(0)
    return Denoiser()
