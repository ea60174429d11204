"""What a graph computes from its parameters alone: constants, once it is trained."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from trt_layermerge.network.placing import attribute

_BY_THE_FIRST = (
    torch.ops.aten.expand.default,
    torch.ops.aten.expand_as.default,
    torch.ops.aten.type_as.default,
    torch.ops.aten.to.other,
)
"""Operators that take values from their first argument alone, and a size or a type of numbers from the others."""

_BY_THE_REST = (torch.ops.aten.new_zeros.default, torch.ops.aten.new_ones.default, torch.ops.aten.new_full.default)
"""Operators that take nothing but a type of numbers from their first argument."""


class ParameterValues:
    """The constants of one graph.

    1. A parameter or buffer is constant.
    2. What is computed from constants alone is, unless it is random.
    3. A constant that takes the size of a batch, or the type of an image's numbers, counts as what it was before:
       elementwise operators expand it again.

    Args:
        module: The graph.
        batch: Where it is given, sizes of the batch are known too, and constants are expanded to it.
    """

    def __init__(self, module: fx.GraphModule, batch: int | None = None) -> None:
        self._module = module
        self._constant: set[fx.Node] = set()
        self._values: dict[fx.Node, Any] = {}
        for node in module.graph.nodes:
            if batch is not None and _is_batch(node):
                self._constant.add(node)
                self._values[node] = batch
            if node.op == "get_attr" or (_computes(node) and all(one in self._constant for one in _deciding(node))):
                self._constant.add(node)

    def __contains__(self, node: object) -> bool:
        """Whether a node's value is constant."""
        return node in self._constant

    def value(self, node: fx.Node) -> Tensor:
        """The value of a constant; no copy of a parameter."""
        value = self.known(node)
        assert isinstance(value, Tensor)
        return value

    def names(self, node: fx.Node) -> list[str]:
        """The parameters and buffers that a constant is computed from, by their names in the state dict, each once."""
        found, todo, seen = [], [node], set()
        while todo:
            one = todo.pop(0)
            if one in self._constant and one not in seen:
                seen.add(one)
                todo += one.all_input_nodes
                found += [str(one.target)] if one.op == "get_attr" else []
        return list(dict.fromkeys(found))

    def trained(self, node: fx.Node) -> bool:
        """Whether one of those parameters is trained."""
        return any(attribute(self._module, name).requires_grad for name in self.names(node))

    def known(self, node: fx.Node) -> Any:
        """The value of a constant, or of the batch."""
        if node not in self._values:
            with torch.no_grad():
                self._values[node] = self._computed(node)
        return self._values[node]

    def _computed(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return attribute(self._module, str(node.target)).detach()
        if node.target in _BY_THE_FIRST and any(value not in self._constant for value in node.all_input_nodes):
            return self.known(node.all_input_nodes[0])  # a batch's expansion
        if node.target in _BY_THE_REST:
            self._values.setdefault(node.all_input_nodes[0], torch.zeros(()))
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.known)
        call: Any = self._module.get_submodule(str(node.target)) if node.op == "call_module" else node.target
        return call(*args, **kwargs)


def _deciding(node: fx.Node) -> list[fx.Node]:
    """The inputs that decide a node's values."""
    if node.target in _BY_THE_FIRST:
        return node.all_input_nodes[:1]
    return node.all_input_nodes[1:] if node.target in _BY_THE_REST else node.all_input_nodes


def _is_batch(node: fx.Node) -> bool:
    """Whether a node is the number of samples."""
    if node.target is not torch.ops.aten.sym_size.int or node.args[1] != 0:
        return False
    return node.all_input_nodes[0].meta.get("multiple") == 1


def _computes(node: fx.Node) -> bool:
    """Whether a node makes the same of the same inputs, and a tensor of constants."""
    if node.op == "call_module":
        return True
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    known = isinstance(node.target, torch._ops.OpOverload) or node.target is operator.getitem
    return node.op == "call_function" and not random and (known or node.target is operator.add)
