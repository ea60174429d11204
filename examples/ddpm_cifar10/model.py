"""The U-Net of DDPM on CIFAR-10 (Ho et al., arXiv 2006.11239) as diffusers has it: 35.7 million parameters.

The configuration is that of google/ddpm-cifar10-32, whose weights fit by name. It needs
``pip install '.[diffusion]'``.
"""

from __future__ import annotations

import torch
from diffusers.models.unets.unet_2d import UNet2DModel

INPUTS = {"sample": (3, 32, 32), "timestep": 1000}


class DenoisingUNet(UNet2DModel):
    """Returns the predicted noise itself, where diffusers wraps it in an output class."""

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The noise in ``sample``, ``[batch, 3, 32, 32]``, at time steps ``[batch]``."""
        return super().forward(sample, timestep, return_dict=False)[0]


def unet() -> DenoisingUNet:
    """The network with random weights."""
    return DenoisingUNet(
        sample_size=32,
        block_out_channels=(128, 256, 256, 256),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        norm_num_groups=32,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
