"""Which candidates are worth looking at. Torch-free: options are made from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Which candidates are worth looking at.

    Attributes:
        max_kernel: Largest kernel of a merged or fitted convolution, per axis.
        max_layers: Most layers in one block.
        bottleneck_activations: Whether blocks that end at a linear bottleneck may end with an activation, too.
        regions: Whether regions with more in them than a chain are replaced whole.
    """

    max_kernel: int = 7
    max_layers: int = 12
    bottleneck_activations: bool = False
    regions: bool = True
