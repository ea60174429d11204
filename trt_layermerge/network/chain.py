"""Chains as values: numbered layers, the skips between them, and where and why a chain ends. Torch-free.

Layers of a chain are numbered 1..L; tensor 0 is the chain's input and tensor l the output of layer l. Layer l computes
``x_l = s_l(unit_l(pre_norm_l(x_{l-1})) + sum over skips (s, l) of skip(x_s)) + sum over late skips (s, l) of
skip(x_s)``, where a unit is linear but for a bias and a shift; pre-norms and shifts are those of ``pre_norms.py``, and
most layers have neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce

from trt_layermerge.network.geometry import Geometry

ImageShape = tuple[int, int, int]
"""Channels, height, width."""


@dataclass(frozen=True)
class PreNorm:
    """A group norm, and maybe an activation, through which one convolution reads a tensor.

    Attributes:
        norm: Node of the group norm.
        groups: Number of its groups.
        activation: Canonical name of the activation behind it, if there is one.
        output: Node of its result, behind dropout.
    """

    norm: str
    groups: int
    activation: str | None
    output: str

    def __str__(self) -> str:
        """As it stands in tables: ``gn32 silu``."""
        return f"gn{self.groups}" + (f" {self.activation}" if self.activation else "")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What computes as one convolution does, by the names of its nodes in the normal form.

    A convolution, the batch norm behind it folded in; an average pooling; or a batch norm alone, which counts as a
    convolution, 1x1 and depthwise.

    Attributes:
        name: Name of its convolution, pooling or lone norm in the state dict, for people.
        conv: Node of the convolution or the average pooling; ``None`` for a norm alone.
        norm: Node of the batch norm, if there is one.
        geometry: Of the convolution that it is.
        bias: Whether that has a bias, with the norm folded in.
        pooling: It is an average pooling, which is executed as one where it is kept.
        shift: Node of the shift that is added to the convolution's result, if there is one.
        shifted: Node of that addition.
    """

    name: str
    conv: str | None
    norm: str | None
    geometry: Geometry
    bias: bool
    pooling: bool = False
    shift: str | None = None
    shifted: str | None = None

    @property
    def first(self) -> str:
        """The node that reads the unit's input."""
        return self.conv or self.norm or ""

    @property
    def last(self) -> str:
        """The node of its result."""
        return self.norm or self.shifted or self.conv or ""


@dataclass(frozen=True, kw_only=True)
class Layer(Unit):
    """One layer of a chain: a unit, and what follows it up to the next one.

    Attributes:
        index: Its number in the chain, from 1.
        adds: Nodes of the additions of the skips that end here, in order of execution.
        act: Node of the activation, if there is one.
        activation: Canonical name of the activation.
        late_adds: Nodes of the additions behind the activation, in order of execution.
        output: Node of tensor ``index``, behind dropout.
        input_shape: Channels, height and width of tensor ``index - 1``.
        output_shape: Of tensor ``index``.
        pre_norm: What the convolution reads tensor ``index - 1`` through, if there is anything.
    """

    index: int
    adds: tuple[str, ...]
    act: str | None
    activation: str | None
    late_adds: tuple[str, ...] = ()
    output: str
    input_shape: ImageShape
    output_shape: ImageShape
    pre_norm: PreNorm | None = None

    @property
    def reader(self) -> str:
        """Node that reads tensor ``index - 1``."""
        return self.first if self.pre_norm is None else self.pre_norm.norm

    @property
    def before_activation(self) -> str:
        """Node of the sum that the activation is applied to."""
        return self.adds[-1] if self.adds else self.last


@dataclass(frozen=True)
class Skip:
    """Tensor ``start`` is added to the result of layer ``end``, possibly through units of its own, one after another.

    Attributes:
        start: Number of the tensor that it starts from.
        end: Number of the layer that it is added to.
        add: Node of the addition that reads it: the layer's own, or one of terms that are summed before.
        operand: Node of what is added.
        units: What it leads through.
        late: It is added behind the activation of layer ``end``, not before.
    """

    start: int
    end: int
    add: str
    operand: str
    units: tuple[Unit, ...] = ()
    late: bool = False

    @property
    def name(self) -> str | None:
        """Names of its units, for people; ``None`` where it has none."""
        return ", ".join(unit.name for unit in self.units) or None

    @cached_property
    def geometry(self) -> Geometry | None:
        """Of the one convolution that its units make."""
        return reduce(Geometry.then, (unit.geometry for unit in self.units)) if self.units else None

    @property
    def first(self) -> str:
        """The node that reads tensor ``start`` for it."""
        return self.units[0].first if self.units else self.add

    def inside(self, start: int, end: int) -> bool:
        """Whether the skip lies wholly in the block ``(start, end]``, whose last activation is not part of it."""
        return start <= self.start and (self.end < end if self.late else self.end <= end)

    def crosses(self, start: int, end: int) -> bool:
        """Whether one end of the skip, and only one, is hidden inside the block ``(start, end]``.

        A late skip to layer ``end`` is added behind the block, to the result of the activation that stays there.
        """
        hidden_start, hidden_end = start < self.start < end, start < self.end < end
        goes_on = self.end >= end if self.late else self.end > end
        return (hidden_start and goes_on) or (hidden_end and self.start < start)


@dataclass(frozen=True)
class Chain:
    """A maximal path of layers.

    Attributes:
        index: Its number in the network, from 0.
        input: Node of tensor 0.
        layers: Layers 1..L.
        skips: Skips between its tensors.
        reason: In words, why it does not go on.
        multiple: Images at once for each sample of the batch: frames of a clip, or windows, that are folded into it.
    """

    index: int
    input: str
    layers: tuple[Layer, ...]
    skips: tuple[Skip, ...]
    reason: str
    multiple: int = 1

    def __len__(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @cached_property
    def _shapes(self) -> tuple[ImageShape, ...]:
        return (self.layers[0].input_shape, *(layer.output_shape for layer in self.layers))

    def tensor(self, index: int) -> str:
        """Node of tensor ``index``, from 0."""
        return self.input if index == 0 else self.layers[index - 1].output

    def shape(self, index: int) -> ImageShape:
        """ImageShape of tensor ``index``."""
        return self._shapes[index]

    def activation(self, index: int) -> str | None:
        """Canonical name of the activation that made tensor ``index``; ``None`` for tensor 0 and behind late skips."""
        if index == 0 or self.layers[index - 1].late_adds:
            return None
        return self.layers[index - 1].activation


@dataclass(frozen=True)
class Break:
    """A place where a chain ends, or a convolution that is in none.

    Attributes:
        after: The layer it comes after, by name, or the convolution itself.
        reason: In words.
    """

    after: str
    reason: str
