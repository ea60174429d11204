"""An image of bytes as a network takes it, by the steps of ``Preprocessing``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from trt_layermerge.errors import TaskError
from trt_layermerge.training.unlabelled.preprocessing import Preprocessing

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey: ITU-R BT.601."""


def prepared(image: Tensor, steps: Preprocessing) -> Tensor:
    """Real numbers, in the layout that the network wants, of bytes ``[height, width, 1 or 3]``, red first.

    Raises:
        TaskError: It has other channels.
        ValueError: It is smaller than what is to be cropped from it.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise TaskError(
            f"an image is {list(image.shape)}; images of bytes are [height, width] or [height, width, 1 or 3]",
            hint="prepare what is no such image yourself, as float32, in the shape that the network takes",
        )
    values = image.permute(2, 0, 1).float()
    height, width = values.shape[1:]
    resized, (rows, columns) = steps.resized(height, width), steps.size_of(height, width)
    if resized != (height, width):
        values = F.interpolate(values[None], resized, mode="bilinear", antialias=True)[0]
    top, left = (resized[0] - rows) // 2, (resized[1] - columns) // 2
    values = _coloured(values[:, top : top + rows, left : left + columns], steps.channels) / steps.scale
    mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (steps.mean, steps.std))
    values = (values - mean) / std
    return (values if steps.layout == "chw" else values.permute(1, 2, 0)).contiguous()


def _coloured(values: Tensor, channels: str) -> Tensor:
    if channels == "grey":
        return values if len(values) == 1 else (values * torch.tensor(_LUMA).view(3, 1, 1)).sum(0, keepdim=True)
    values = values.expand(3, -1, -1)
    return values.flip(0) if channels == "bgr" else values
