"""What a latency is estimated of: one convolution, or one operation that only moves memory.

Both are shapes without weights or names; signatures and ONNX nodes are turned into them where they are known.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

PRECISION_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of an element. The fits know FP32 alone."""

MOST_ELEMENTS = 2**48
"""Of one tensor: far beyond any device, and safe in the formulas."""


@dataclass(frozen=True)
class Workload:
    """One convolution.

    Attributes:
        batch: Images at once.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        height: Of the input, in pixels.
        width: Of the input.
        kernel: Height and width of the kernel, in taps.
        stride: Step of the output grid, per axis.
        padding: Zeros around the input: top, left, bottom, right.
        dilation: Distance of two taps, per axis.
        groups: Number of independent groups of channels.
        precision: ``fp32``, ``fp16`` or ``int8``.
        residual: Whether a tensor of the output's shape is added in the same kernel.
    """

    batch: int
    in_channels: int
    out_channels: int
    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    precision: str = "fp32"
    residual: bool = False

    POSITIVE: ClassVar[tuple[str, ...]] = (
        "batch",
        "in_channels",
        "out_channels",
        "height",
        "width",
        "kernel",
        "stride",
        "dilation",
        "groups",
    )

    def __post_init__(self) -> None:
        """Refuse what is no convolution; messages begin with the field."""
        for name in self.POSITIVE:
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,)) < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if min(self.padding) < 0:
            raise ValueError(f"padding must not be negative, but is {self.padding}")
        if self.precision not in PRECISION_BYTES:
            raise ValueError(f"precision is {self.precision!r}, none of {', '.join(PRECISION_BYTES)}")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"groups: {self.in_channels} and {self.out_channels} channels cannot be in {self.groups} groups"
            )
        if min(self.output_size) < 1:
            raise ValueError(f"kernel {self.kernel} does not fit on {self.height}x{self.width} with its padding")
        elements = max(self.in_channels * self.height * self.width, self.out_channels * self.pixels) * self.batch
        if max(elements, self.out_channels * self.in_channels * self.kernel[0] * self.kernel[1]) > MOST_ELEMENTS:
            raise ValueError(f"height {self.height}: a tensor has more than {MOST_ELEMENTS} elements")

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the output."""
        top, left, bottom, right = self.padding
        return (
            (self.height + top + bottom - 1 - (self.kernel[0] - 1) * self.dilation[0]) // self.stride[0] + 1,
            (self.width + left + right - 1 - (self.kernel[1] - 1) * self.dilation[1]) // self.stride[1] + 1,
        )

    @property
    def pixels(self) -> int:
        """Output pixels of one image."""
        height, width = self.output_size
        return height * width

    @property
    def depthwise(self) -> bool:
        """Every channel is convolved on its own, and stays one channel."""
        return self.groups == self.in_channels == self.out_channels > 1

    @property
    def oddities(self) -> tuple[str, ...]:
        """What of it no fit has seen on any card, in words."""
        found = {
            "groups": self.groups > 1 and not self.depthwise,
            "dilation": self.dilation != (1, 1),
            "oblong kernel": self.kernel[0] != self.kernel[1],
            "oblong stride": self.stride[0] != self.stride[1],
            "uneven padding": len(set(self.padding)) > 1,
            "residual add": self.residual,
        }
        return tuple(name for name, present in found.items() if present)


@dataclass(frozen=True)
class MemoryOperation:
    """An operation that is bound by memory: an addition, an activation of its own, a pooling, a norm.

    Attributes:
        read: Elements read from memory; a tensor that is read twice counts twice.
        written: Elements written.
        precision: ``fp32``, ``fp16`` or ``int8``.
        kernels: GPU kernels that it takes.
    """

    read: int
    written: int
    precision: str = "fp32"
    kernels: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that count nothing."""
        for one in fields(self):
            if one.name != "precision" and not 0 <= getattr(self, one.name) <= MOST_ELEMENTS:
                raise ValueError(f"{one.name} is {getattr(self, one.name)}")
        if self.precision not in PRECISION_BYTES:
            raise ValueError(f"precision is {self.precision!r}, none of {', '.join(PRECISION_BYTES)}")
