"""Finding the channel groups of a graph, and why other channels must all stay.

It is found node by node, in order of execution, what each does to channels; nothing but shapes and kinds is looked at,
so that groups are found in a network in which blocks have been replaced as well.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from math import prod

from torch import fx, nn

from trt_layermerge.network.activations import activation_name
from trt_layermerge.network.chain import Chain
from trt_layermerge.network.channel_group import ChannelGroup, FixedChannels
from trt_layermerge.network.placing import called_module, operator_name, reader_counts
from trt_layermerge.network.units import SHARED

POINTWISE = ("add", "sub", "mul", "div", "maximum", "minimum")
"""Functions of two tensors, channel by channel."""

BY_NUMBER = (
    "clamp",
    "clamp_min",
    "clamp_max",
    "hardtanh",
    "neg",
    "abs",
    "exp",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "rsqrt",
    "square",
    "reciprocal",
    "pow",
    "sin",
    "cos",
    "erf",
    "softplus",
    "logsigmoid",
    "softsign",
)
"""Functions of each number of one tensor alone: what activations are made of that are no layer."""

BY_IMAGE = (
    "max_pool2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "upsample_nearest2d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "mean",
    "amax",
    "pad",
    "constant_pad_nd",
    "reflection_pad2d",
    "replication_pad2d",
)
"""Functions of each channel's image alone; where they make channels fewer or more, the shape tells."""

WITH_INDICES = "max_pool2d_with_indices"
"""A pooling whose first result is the image."""

CHANNELWISE_LAYERS = (nn.Dropout, nn.Dropout2d, nn.Identity, nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d)
"""Layers without parameters that take each channel by itself."""

WHOLE = ("flatten", "view", "reshape", "squeeze", "unsqueeze")
"""Changes of shape that may leave the order of channels as it is."""

WHY_FIXED = {
    "cat": "they are concatenated with others",
    "stack": "they are concatenated with others",
    "chunk": "they are split",
    "split": "they are split",
    "split_with_sizes": "they are split",
    "slice": "they are split",
    "transpose": "they change places with pixels or with one another",
    "permute": "they change places with pixels or with one another",
    "pixel_shuffle": "they are made pixels",
    "flatten": "they are reshaped",
    "view": "they are reshaped",
    "reshape": "they are reshaped",
    "group_norm": "a group norm reads several at once",
    "layer_norm": "a layer norm reads them all at once",
    "conv2d": "a filter reads them that is no layer",
}
"""Why the channels that an operator reads and makes must stay."""

RETURNED = "the network returns them"
GIVEN = "the network is given them"
GROUPED = "a grouped convolution reads or makes them"
CONSTANT = "a sum or product with constants reads them"
UNREAD = "nothing reads them"
SINGLE = "there is only one"


def find_channel_groups(
    module: fx.GraphModule, chains: Sequence[Chain] = ()
) -> tuple[tuple[ChannelGroup, ...], tuple[FixedChannels, ...]]:
    """The channel groups of a graph in order of execution, and the channels that convolutions make and must all stay.

    Args:
        module: A normal form, or one in which blocks have been replaced; nodes that hold tensors have
            ``meta["shape"]``, without the batch.
        chains: Whose tensors the groups' are told as.
    """
    finder = _Finder(module)
    numbered = {chain.tensor(number): (chain.index, number) for chain in chains for number in range(len(chain) + 1)}
    groups: list[ChannelGroup] = []
    fixed: list[FixedChannels] = []
    for space in finder.spaces():
        producers = tuple(node.name for node in space.nodes if node in finder.producers)
        through = tuple(node.name for node in space.nodes if node not in finder.producers)
        tensors = tuple(sorted(numbered[node.name] for node in space.nodes if node.name in numbered))
        consumers = tuple(node.name for node in space.consumers)
        reason = space.reason or ("" if consumers else UNREAD) or ("" if space.channels > 1 else SINGLE)
        if not reason:
            groups.append(ChannelGroup(len(groups), space.channels, producers, consumers, through, tensors))
        elif producers:
            fixed.append(FixedChannels(producers, tensors, reason))
    return tuple(groups), tuple(fixed)


class _Space:
    """Channels that some nodes have in common, so far.

    Attributes:
        channels: How many.
        nodes: Whose results have them, in order of execution.
        consumers: What reads them all.
        reason: Why they must all stay, if they must.
    """

    def __init__(self, channels: int) -> None:
        self.channels, self.reason = channels, ""
        self.nodes: list[fx.Node] = []
        self.consumers: list[fx.Node] = []

    def take_in(self, other: _Space) -> None:
        self.nodes += other.nodes
        self.consumers += other.consumers
        self.reason = self.reason or other.reason


class _Finder:
    """The channels of one graph.

    A node is one of these, by the first that holds:

    1. A convolution or linear layer over all channels: it consumes some and makes others.
    2. A layer or function that takes each channel by itself: it passes channels on, and joins those of its operands.
    3. Anything else: what it reads and makes must stay.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.module, self.readers = module, reader_counts(module)
        self.of: dict[fx.Node, _Space] = {}
        self.producers: set[fx.Node] = set()
        order = {node: number for number, node in enumerate(module.graph.nodes)}
        for node in order:
            self._visit(node)
        for space in self.spaces():
            space.nodes.sort(key=order.__getitem__)
            space.consumers.sort(key=order.__getitem__)

    def spaces(self) -> Iterator[_Space]:
        """All channels, by who makes them first."""
        yield from dict.fromkeys(self.of.values())

    def _visit(self, node: fx.Node) -> None:
        part = called_module(self.module, node)
        read = [source for source in node.all_input_nodes if source in self.of]
        if node.op == "output":
            self._fix(read, RETURNED)
        elif node.op == "placeholder":
            self._fix([self._begin(node)], GIVEN)
        elif read and part is not None and self._consumes(node, part):
            self.of[read[0]].consumers.append(node)
            self.producers.add(self._begin(node))
            if self.readers[str(node.target)] > 1:
                self._fix([read[0], node], SHARED)
        elif read:
            reason = self._why_not_one_by_one(node, part, read)
            if reason is None:
                self._join(node, read)
                return
            if isinstance(part, nn.Conv2d | nn.Linear):
                self.producers.add(node)
            self._fix([*read, self._begin(node)], reason)

    def _begin(self, node: fx.Node) -> fx.Node:
        """Let a node have channels of its own."""
        self.of[node] = _Space((*node.meta.get("shape", ()), 0)[0])
        self.of[node].nodes.append(node)
        return node

    def _fix(self, nodes: Sequence[fx.Node], reason: str) -> None:
        for node in nodes:
            self.of[node].reason = self.of[node].reason or reason

    def _join(self, node: fx.Node, read: Sequence[fx.Node]) -> None:
        """Let a node have the channels that it reads, which become one."""
        space = self.of[read[0]]
        for other in {self.of[source] for source in read[1:]} - {space}:
            space.take_in(other)
            for member in other.nodes:
                self.of[member] = space
        self.of[node] = space
        space.nodes.append(node)

    def _consumes(self, node: fx.Node, part: nn.Module) -> bool:
        vector = len(node.all_input_nodes[0].meta.get("shape", ())) == 1
        return (isinstance(part, nn.Conv2d) and part.groups == 1) or (isinstance(part, nn.Linear) and vector)

    def _why_not_one_by_one(self, node: fx.Node, part: nn.Module | None, read: Sequence[fx.Node]) -> str | None:
        """Why a node does not pass channels on one by one; ``None`` if it does."""
        shape, before = node.meta.get("shape", ()), [source.meta.get("shape", ()) for source in read]
        if part is not None:
            return self._why_not_by_module(node, part)
        name, first = operator_name(node), before[0]
        if node.target is operator.getitem and node.args[1] == 0 and operator_name(read[0]) == WITH_INDICES:
            return None
        if name in WHOLE and len(read) == 1 and _in_order(first, shape):
            return None
        alike = len({(self.of[source].channels, *source.meta.get("shape", ())[:1]) for source in read}) == 1
        if name in POINTWISE and alike and all(len(one) == len(shape) and one[:1] == shape[:1] for one in before):
            return CONSTANT if any(source not in self.of for source in node.all_input_nodes) else None
        if name in BY_NUMBER and len(node.all_input_nodes) == 1 and shape == first:
            return None
        if name == WITH_INDICES or (name in BY_IMAGE and len(first) == 3 and first[:1] == shape[:1] and _spatial(node)):
            return None
        return WHY_FIXED.get(name, f"{name} reads them")

    def _why_not_by_module(self, node: fx.Node, part: nn.Module) -> str | None:
        if isinstance(part, nn.Conv2d) and not part.groups == part.in_channels == part.out_channels:
            return GROUPED
        if isinstance(part, nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d | nn.PReLU):
            each = any(value.numel() > 1 for value in (*part.parameters(), *part.buffers()))
            return SHARED if each and self.readers[str(node.target)] > 1 else None
        if activation_name(part) is not None or isinstance(part, CHANNELWISE_LAYERS):
            return None
        if isinstance(part, nn.Flatten):
            return (
                None if _in_order(node.all_input_nodes[0].meta["shape"], node.meta["shape"]) else WHY_FIXED["flatten"]
            )
        return WHY_FIXED["group_norm"] if isinstance(part, nn.GroupNorm) else f"{type(part).__name__} reads them"


def _spatial(node: fx.Node) -> bool:
    """Whether a function that takes dimensions, or what to pad them by, takes none but rows and columns."""
    given = node.args[1] if len(node.args) > 1 else None
    if operator_name(node) in ("mean", "amax"):
        return isinstance(given, list | tuple) and {dim % 4 for dim in given if isinstance(dim, int)} <= {2, 3}
    return "pad" not in operator_name(node) or (isinstance(given, list | tuple) and len(given) <= 4)


def _in_order(before: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether numbers of one channel stay in a row, channel after channel: a flat image, or a vector made an image."""
    return prod(before) == prod(shape) and prod(shape[1:]) == 1
