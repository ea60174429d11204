"""The signature of a gap: a part of a network that is no layer, timed as it is. Torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.network.chain import ImageShape
from trt_layermerge.network.region import Gap

_KEY = re.compile(
    r"(?P<precision>\w+) n(?P<batch>[1-9]\d{0,8}) (?P<input>\d+x\d+x\d+) gap (?P<structure>[0-9a-f]{16}) "
    r"(?P<output>\d+x\d+x\d+)"
)


@dataclass(frozen=True)
class GapSignature:
    """All that the latency of a gap depends on; gaps of several networks may have the same.

    Attributes:
        batch: Images at once.
        input_shape: Channels, height and width of the input.
        output_shape: Of the output.
        structure: Hash of its operations and their shapes.
        precision: ``fp32``, ``fp16`` or ``int8``.
    """

    batch: int
    input_shape: ImageShape
    output_shape: ImageShape
    structure: str
    precision: str = "fp32"

    empty = False
    macs = 0
    """Not counted: how long it takes is not guessed from those of convolutions."""

    @classmethod
    def of(cls, gap: Gap, batch: int, precision: str) -> GapSignature:
        """The signature of a gap in a network that is run with this batch."""
        return cls(batch * gap.multiple, gap.input_shape, gap.output_shape, gap.structure, precision)

    @property
    def values(self) -> int:
        """Numbers that are in memory while it is timed: its input and output."""
        return self.batch * (prod(self.input_shape) + prod(self.output_shape))

    @property
    def key(self) -> str:
        """The signature as one line of text, in which tables are keyed."""
        before, behind = ("x".join(map(str, shape)) for shape in (self.input_shape, self.output_shape))
        return f"{self.precision} n{self.batch} {before} gap {self.structure} {behind}"


AnySignature = Signature | GapSignature
"""Whatever a row of a profile is of."""


def parse_signature(key: str) -> AnySignature:
    """Read a signature back from its key.

    Raises:
        ValueError: The text is not a signature's key.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        return Signature.parse(key)
    (a, b, c), (d, e, f) = (tuple(map(int, match[name].split("x"))) for name in ("input", "output"))
    return GapSignature(int(match["batch"]), (a, b, c), (d, e, f), match["structure"], match["precision"])
