"""Chains as values: numbered layers, the skips between them, and where and why a chain ends. Torch-free.

Layers of a chain are numbered 1..L; tensor 0 is the chain's input and tensor l the output of layer l. Layer l computes
``x_l = s_l(norm_l(conv_l(front_l(x_{l-1})) + shift_l) + sum over skips (s, l) of skip(x_s))``; front and shift are
those of ``fronts.py``, and most layers have neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from trt_layermerge.network.geometry import Geometry

Shape = tuple[int, int, int]
"""Channels, height, width."""


@dataclass(frozen=True)
class Front:
    """A group norm, and maybe an activation, through which one convolution reads a tensor.

    Attributes:
        norm: Node of the group norm.
        groups: Number of its groups.
        act: Node of the activation behind it, if there is one.
        activation: Canonical name of the activation.
    """

    norm: str
    groups: int
    act: str | None = None
    activation: str | None = None

    @property
    def output(self) -> str:
        """Node of its result."""
        return self.act or self.norm

    def __str__(self) -> str:
        """As it stands in tables: ``gn32 silu``."""
        return f"gn{self.groups}" + (f" {self.activation}" if self.activation else "")


@dataclass(frozen=True)
class Layer:
    """One layer of a chain, by the names of its nodes in the normal form.

    Attributes:
        index: Its number in the chain, from 1.
        name: Name of its convolution in the state dict, for people.
        conv: Node of the convolution.
        norm: Node of the batch norm behind it, if there is one.
        adds: Nodes of the additions of the skips that end here, in order of execution.
        act: Node of the activation, if there is one.
        activation: Canonical name of the activation.
        geometry: Of the convolution.
        bias: Whether the convolution, with its norm folded in, has a bias.
        input_shape: Channels, height and width of tensor ``index - 1``.
        output_shape: Of tensor ``index``.
        front: What the convolution reads tensor ``index - 1`` through, if there is anything.
        shift: Node of the shift that is added to the convolution's result, if there is one.
        shifted: Node of that addition.
    """

    index: int
    name: str
    conv: str
    norm: str | None
    adds: tuple[str, ...]
    act: str | None
    activation: str | None
    geometry: Geometry
    bias: bool
    input_shape: Shape
    output_shape: Shape
    front: Front | None = None
    shift: str | None = None
    shifted: str | None = None

    @property
    def first(self) -> str:
        """Node that reads tensor ``index - 1``."""
        return self.conv if self.front is None else self.front.norm

    @property
    def before_adds(self) -> str:
        """Node of the layer's own result, before skips and activation."""
        return self.norm or self.shifted or self.conv

    @property
    def before_activation(self) -> str:
        """Node of the sum that the activation is applied to."""
        return self.adds[-1] if self.adds else self.before_adds

    @property
    def output(self) -> str:
        """Node of tensor ``index``."""
        return self.act or self.before_activation


@dataclass(frozen=True)
class Skip:
    """Tensor ``start`` is added to the result of layer ``end``, possibly through a convolution of its own.

    A batch norm alone, as in RepVGG, counts as one: 1x1 and depthwise.

    Attributes:
        start: Number of the tensor that it starts from.
        end: Number of the layer that it is added to.
        add: Node of the addition that reads it: the layer's own, or one of terms that are summed before.
        name: Name of its convolution, or lone norm, in the state dict, if it has one.
        conv: Node of its convolution; ``None`` where it has none or is a norm alone.
        norm: Node of the batch norm behind that, or alone.
        geometry: Of its convolution, or of the one that its lone norm is.
        bias: Whether its convolution, with its norm folded in, has a bias.
    """

    start: int
    end: int
    add: str
    name: str | None = None
    conv: str | None = None
    norm: str | None = None
    geometry: Geometry | None = None
    bias: bool = False

    def inside(self, start: int, end: int) -> bool:
        """Whether the skip lies wholly in the block ``(start, end]``."""
        return start <= self.start and self.end <= end

    def crosses(self, start: int, end: int) -> bool:
        """Whether one end of the skip, and only one, is hidden inside the block ``(start, end]``."""
        hidden_start, hidden_end = start < self.start < end, start < self.end < end
        return (hidden_start and self.end > end) or (hidden_end and self.start < start)


@dataclass(frozen=True)
class Chain:
    """A maximal path of layers.

    Attributes:
        index: Its number in the network, from 0.
        input: Node of tensor 0.
        layers: Layers 1..L.
        skips: Skips between its tensors.
        reason: In words, why it does not go on.
    """

    index: int
    input: str
    layers: tuple[Layer, ...]
    skips: tuple[Skip, ...]
    reason: str

    def __len__(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @cached_property
    def _shapes(self) -> tuple[Shape, ...]:
        return (self.layers[0].input_shape, *(layer.output_shape for layer in self.layers))

    def tensor(self, index: int) -> str:
        """Node of tensor ``index``, from 0."""
        return self.input if index == 0 else self.layers[index - 1].output

    def read_by(self, index: int) -> str:
        """Node of what the convolution of a layer takes: the tensor before it, or that behind the layer's front."""
        front = self.layers[index - 1].front
        return self.tensor(index - 1) if front is None else front.output

    def shape(self, index: int) -> Shape:
        """Shape of tensor ``index``."""
        return self._shapes[index]

    def activation(self, index: int) -> str | None:
        """Canonical name of the activation that made tensor ``index``; ``None`` for tensor 0."""
        return None if index == 0 else self.layers[index - 1].activation


@dataclass(frozen=True)
class Break:
    """A place where a chain ends, or a convolution that is in none.

    Attributes:
        after: The layer it comes after, by name, or the convolution itself.
        reason: In words.
    """

    after: str
    reason: str
