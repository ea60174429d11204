"""What takes a block's place where one convolution is not all: shifts carried to its result, a norm moved behind it."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class Shifted(nn.Module):
    """A convolution, and shifts that are added to its result, each through a matrix of its own.

    Attributes:
        convolution: Takes the block's input.
        carries: One linear map without a bias for each shift.
    """

    def __init__(self, convolution: nn.Module, carries: Sequence[Float[Tensor, "out channels"]]) -> None:
        super().__init__()
        self.convolution = convolution
        self.carries = nn.ModuleList(_linear(matrix) for matrix in carries)

    def forward(self, x: Tensor, *shifts: Tensor) -> Tensor:
        """Convolve ``[batch, channels, h, w]`` and add what becomes of shifts ``[batch, channels, 1, 1]``."""
        y: Tensor = self.convolution(x)
        for carry, shift in zip(self.carries, shifts, strict=True):
            y = y + carry(shift.flatten(1))[:, :, None, None]
        return y


class Normed(nn.Module):
    """A block and a norm behind it; the norm is the source's own, copied."""

    def __init__(self, block: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.block, self.norm = block, norm

    def forward(self, x: Tensor, *shifts: Tensor) -> Tensor:
        """The block's result, normalised."""
        y: Tensor = self.norm(self.block(x, *shifts))
        return y


def _linear(matrix: Float[Tensor, "out channels"]) -> nn.Linear:
    out, channels = matrix.shape
    linear = nn.Linear(channels, out, bias=False, device="meta")  # nothing is drawn at random
    linear.weight = nn.Parameter(matrix.clone().contiguous())
    return linear
