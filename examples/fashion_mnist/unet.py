"""A small denoising U-Net for 28x28 grey images, as diffusers has it: ``pip install '.[diffusion]'``.

That of DDPM (Ho, Jain and Abbeel, arXiv 2006.11239) with an eighth of its channels, three resolutions and no attention
but that in the middle.
"""

from __future__ import annotations

import torch
from diffusers.models.unets.unet_2d import UNet2DModel

TIMESTEPS = 1000
INPUTS = {"sample": (1, 28, 28), "timestep": TIMESTEPS}


class DenoisingUNet(UNet2DModel):
    """Returns the predicted noise itself, where diffusers wraps it in an output class."""

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The noise in ``sample``, ``[batch, 1, 28, 28]``, at time steps ``[batch]``."""
        return super().forward(sample, timestep, return_dict=False)[0]


def deep_unet() -> DenoisingUNet:
    """The same with two blocks a resolution, as DDPM has it, with random weights."""
    return unet(blocks=2)


def unet(blocks: int = 1) -> DenoisingUNet:
    """The network with random weights, and so many residual blocks a resolution down, one more up."""
    return DenoisingUNet(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32, 64),
        layers_per_block=blocks,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        attention_head_dim=None,
        norm_num_groups=8,
    )
