"""Recognising units in a normal form: what computes as one convolution does, and what does nothing.

A unit is a convolution with the shift and the batch norm behind it, an average pooling, or a batch norm alone. Dropout,
which does nothing in evaluation, may stand behind any part of it and belongs to it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import replace

from torch import fx, nn

from trt_layermerge.network.chain import Unit
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.padding import geometry_of
from trt_layermerge.network.placing import called_module, reader_counts
from trt_layermerge.network.pooling import pooling_geometry, why_no_convolution
from trt_layermerge.network.pre_norms import shift_of

SHARED = "its weights are shared: it is called more than once, or something else reads them"

TRANSPOSED_NORM = "the norm of a transposed convolution, which it is folded into"


class Units:
    """The units of one normal form."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.root = module
        self.readers = reader_counts(module)

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, if it calls one."""
        return called_module(self.root, node)

    def firsts(self) -> Iterator[fx.Node]:
        """Every node that could be the first of a unit, in order of execution, usable or not."""
        for node in self.root.graph.nodes:
            if isinstance(self.module(node), (nn.Conv2d, nn.AvgPool2d, nn.BatchNorm2d)):
                yield node

    def is_convolution(self, node: fx.Node) -> bool:
        """Whether a node calls a convolution."""
        return isinstance(self.module(node), nn.Conv2d)

    def unusable(self, node: fx.Node) -> str | None:
        """Why a node cannot be the first of a unit, in words; ``None`` if it can."""
        module = self.module(node)
        if not isinstance(module, (nn.Conv2d, nn.AvgPool2d, nn.BatchNorm2d)):
            return "it is not linear"
        if self.readers[str(node.target)] > 1:
            return SHARED
        shape, input_shape = (n.meta.get("shape", ()) for n in (node, node.all_input_nodes[0]))
        of_batch = node.meta.get("multiple", 1) is not None
        if len(shape) != 3 or len(input_shape) != 3 or not of_batch:
            return "the size of its input is not fixed"
        if isinstance(module, nn.AvgPool2d):
            return why_no_convolution(module, input_shape[1:], shape[1:])
        before = self.own(node.all_input_nodes[0]) if isinstance(module, nn.BatchNorm2d) else None
        return TRANSPOSED_NORM if isinstance(before, nn.ConvTranspose2d) else None

    def starts(self, node: fx.Node) -> bool:
        """Whether a node is the first of a unit."""
        return self.unusable(node) is None

    def own(self, node: fx.Node) -> nn.Module | None:
        """The module of a call that has one reader and is the only one to read its module."""
        alone = len(node.users) == 1 and self.readers[str(node.target)] == 1
        return self.module(node) if alone else None

    def behind(self, node: fx.Node) -> fx.Node:
        """The node's result behind all that does nothing to it in evaluation."""
        while (user := sole_user(node)) is not None and self.inert(user):
            node = user
        return node

    def unit(self, first: fx.Node) -> tuple[Unit, fx.Node]:
        """The unit that begins with a node, and the node of its result."""
        module, channels = self.module(first), first.meta["shape"][0]
        name, result = str(first.target), self.behind(first)
        if isinstance(module, nn.AvgPool2d):
            geometry = pooling_geometry(module, channels)
            return Unit(name=name, conv=first.name, norm=None, geometry=geometry, bias=False, pooling=True), result
        if not isinstance(module, nn.Conv2d):
            geometry = Geometry(channels, channels, (1, 1), groups=channels)
            return Unit(name=name, conv=None, norm=first.name, geometry=geometry, bias=True), result
        unit = Unit(name=name, conv=first.name, norm=None, geometry=geometry_of(module), bias=module.bias is not None)
        if (found := shift_of(result)) is not None:
            shifted, shift = found
            unit, result = replace(unit, shift=shift.name, shifted=shifted.name), self.behind(shifted)
        norm = sole_user(result)
        if norm is None or not isinstance(self.module(norm), nn.BatchNorm2d) or not self.starts(norm):
            return unit, result
        return replace(unit, norm=norm.name, bias=True), self.behind(norm)

    def ending_at(self, result: fx.Node) -> tuple[Unit, fx.Node] | None:
        """The unit with this result, read by one node only, and the node of its input."""
        node = result
        while self.inert(node):
            node = node.all_input_nodes[0]
        candidates = [node]
        if isinstance(self.module(node), nn.BatchNorm2d):
            before = node.all_input_nodes[0]
            while self.inert(before):
                before = before.all_input_nodes[0]
            candidates.insert(0, before)
        for first in candidates:
            if self.starts(first) and len(result.users) == 1:
                unit, end = self.unit(first)
                if end is result:
                    return unit, first.all_input_nodes[0]
        return None

    def length_to_addition(self, first: fx.Node) -> int:
        """Number of units in a row from here to an addition, nothing else between; 0 if they do not lead to one."""
        length, node = 0, first
        while self.starts(node):
            length += 1
            user = sole_user(self.unit(node)[1])
            if user is None:
                return 0
            if user.target is operator.add:
                return length
            node = user
        return 0

    def inert(self, node: fx.Node) -> bool:
        """Whether a node returns its input in evaluation."""
        module = self.module(node)
        if isinstance(module, nn.LeakyReLU):
            return module.negative_slope == 1
        return isinstance(module, (nn.Identity, nn.Dropout, nn.Dropout2d))


def sole_user(node: fx.Node) -> fx.Node | None:
    """The one reader of a node's result; ``None`` if there are more or none."""
    return next(iter(node.users)) if len(node.users) == 1 else None
