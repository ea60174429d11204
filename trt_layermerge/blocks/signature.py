"""The signature of an operation: everything its latency on a device depends on, and nothing else.

Two blocks with the same signature cost the same, in whichever network they stand, so each signature is measured once
per device. Torch-free.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from math import prod

from trt_layermerge.network.geometry import Geometry

_KEY = re.compile(
    r"(?P<precision>\w+) n(?P<batch>\d+) (?P<channels>\d+)x(?P<height>\d+)x(?P<width>\d+) "
    r"(?:(?P<conv>conv|pool) (?P<in>\d+)>(?P<out>\d+) k(?P<kh>\d+)x(?P<kw>\d+) s(?P<sh>\d+)x(?P<sw>\d+) "
    r"p(?P<top>\d+),(?P<left>\d+),(?P<bottom>\d+),(?P<right>\d+) d(?P<dh>\d+)x(?P<dw>\d+) g(?P<groups>\d+)"
    r"(?P<bias> bias)?|pass)"
    r"(?P<shift> shift)?(?: gn(?P<group_norm>\d+))?(?P<residual> add)?"
    r"(?: (?P<activation>[a-z_0-9]+(?:\([-+.\w,]+\))?))?"
)


_DIGITS = 9
"""Of the largest number in a signature."""


@dataclass(frozen=True)
class Signature:
    """One convolution, or none, with what follows it in the same breath.

    The operation is ``activation(group_norm(convolution(x) + shift) + residual)``, each part optional.

    Attributes:
        batch: Images at once.
        input_shape: Channels, height and width of the input.
        convolution: Its geometry, or ``None`` where the block passes its input on to the epilogue.
        bias: Whether the convolution has one; ``False`` where there is no convolution, whatever was passed.
        residual: Whether a second tensor of the output's shape is added.
        activation: Canonical name with parameters, such as ``relu``, ``relu6`` or ``leaky_relu(0.01)``.
        precision: ``fp32``, ``fp16`` or ``int8``.
        pooling: The convolution is an average pooling, executed as one.
        shift: Whether one number for each sample and channel is added to the convolution's result at every pixel.
        group_norm: Number of groups of the group norm behind that; ``None`` where there is none.
    """

    batch: int
    input_shape: tuple[int, int, int]
    convolution: Geometry | None
    bias: bool = True
    residual: bool = False
    activation: str | None = None
    precision: str = "fp32"
    pooling: bool = False
    shift: bool = False
    group_norm: int | None = None

    def __post_init__(self) -> None:
        if self.convolution is None:  # equal operations are equal values, with equal keys
            object.__setattr__(self, "pooling", False)
        if self.convolution is None or self.pooling:
            object.__setattr__(self, "bias", False)

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the output."""
        if self.convolution is None:
            return self.input_shape
        height, width = self.convolution.output_size(self.input_shape[1:])
        return (self.convolution.out_channels, height, width)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        if self.convolution is None:
            return 0
        _, height, width = self.output_shape
        c = self.convolution
        return height * width * c.out_channels * (c.in_channels // c.groups) * c.kernel[0] * c.kernel[1]

    @property
    def weights(self) -> int:
        """Number of the convolution's weights; of none and of pooling, 0."""
        c = self.convolution
        if c is None or self.pooling:
            return 0
        return c.out_channels * (c.in_channels // c.groups) * c.kernel[0] * c.kernel[1]

    @property
    def values(self) -> int:
        """Numbers that are in memory while it is timed: weights, inputs and outputs."""
        return self.weights + self.batch * (prod(self.input_shape) + (1 + self.residual) * prod(self.output_shape))

    @property
    def empty(self) -> bool:
        """Nothing is left to execute; the latency is 0 by definition."""
        nothing_added = not self.residual and not self.shift
        return self.convolution is None and nothing_added and self.activation is None and self.group_norm is None

    @cached_property
    def key(self) -> str:
        """The signature as one line of text, in which tables are keyed; ``parse`` reads it back."""
        parts = [self.precision, f"n{self.batch}", "x".join(map(str, self.input_shape))]
        parts.append("pass" if self.convolution is None else f"{'pool' if self.pooling else 'conv'} {self.convolution}")
        if self.convolution is not None and self.bias:
            parts.append("bias")
        if self.shift:
            parts.append("shift")
        if self.group_norm is not None:
            parts.append(f"gn{self.group_norm}")
        if self.residual:
            parts.append("add")
        if self.activation is not None:
            parts.append(self.activation)
        return " ".join(parts)

    @classmethod
    def parse(cls, key: str) -> Signature:
        """Read a signature back from its key.

        Raises:
            ValueError: The text is not a signature's key.
        """
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"has what is not a signature: {key!r}")

        def number(name: str, least: int = 1) -> int:
            if len(match[name]) > _DIGITS or int(match[name]) < least:
                raise ValueError(f"has what is not a signature: {name} is {match[name][:20]} in {key[:200]!r}")
            return int(match[name])

        convolution = None
        if match["conv"]:
            convolution = Geometry(
                in_channels=number("in"),
                out_channels=number("out"),
                kernel=(number("kh"), number("kw")),
                stride=(number("sh"), number("sw")),
                padding=(number("top", 0), number("left", 0), number("bottom", 0), number("right", 0)),
                dilation=(number("dh"), number("dw")),
                groups=number("groups"),
            )
        return cls(
            batch=number("batch"),
            input_shape=(number("channels"), number("height"), number("width")),
            convolution=convolution,
            bias=match["bias"] is not None,
            residual=match["residual"] is not None,
            activation=match["activation"],
            precision=match["precision"],
            pooling=match["conv"] == "pool",
            shift=match["shift"] is not None,
            group_norm=None if match["group_norm"] is None else number("group_norm"),
        )
