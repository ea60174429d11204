"""The memory layout that networks are trained in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def laid_out(model: nn.Module, channels_last: bool) -> Iterator[None]:
    """Kernels in NHWC layout while inside, contiguous again after."""

    def lay_out(layout: torch.memory_format) -> None:
        for parameter in model.parameters():
            if parameter.ndim == 4:  # Module.to would also try 5-dimensional kernels, and raise
                parameter.data = parameter.data.contiguous(memory_format=layout)

    lay_out(torch.channels_last if channels_last else torch.contiguous_format)
    try:
        yield
    finally:
        lay_out(torch.contiguous_format)
