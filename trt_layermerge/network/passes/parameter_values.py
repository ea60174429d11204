"""What a graph computes from its parameters alone: constants, once it is trained."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from trt_layermerge.network.placing import attribute

_EXPANSIONS = (torch.ops.aten.expand.default, torch.ops.aten.expand_as.default)


class ParameterValues:
    """The constants of one graph.

    1. A parameter or buffer is constant.
    2. What is computed from constants alone is, unless it is random.
    3. A constant that is expanded to the size of a batch counts as what it was before: elementwise operators expand it
       again.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._constant: set[fx.Node] = set()
        self._known: dict[fx.Node, Any] = {}
        for node in module.graph.nodes:
            inputs = node.all_input_nodes[:1] if node.target in _EXPANSIONS else node.all_input_nodes
            if node.op == "get_attr" or (_computes(node) and all(value in self._constant for value in inputs)):
                self._constant.add(node)

    def __contains__(self, node: object) -> bool:
        """Whether a node's value is constant."""
        return node in self._constant

    def value(self, node: fx.Node) -> Tensor:
        """The value of a constant; no copy of a parameter."""
        value = self._value(node)
        assert isinstance(value, Tensor)
        return value

    def names(self, node: fx.Node) -> list[str]:
        """The parameters and buffers that a constant is computed from, by their names in the state dict, each once."""
        if node.op == "get_attr":
            return [str(node.target)]
        return list(dict.fromkeys(name for value in node.all_input_nodes for name in self.names(value)))

    def trained(self, node: fx.Node) -> bool:
        """Whether one of those parameters is trained."""
        return any(attribute(self._module, name).requires_grad for name in self.names(node))

    def _value(self, node: fx.Node) -> Any:
        if node not in self._known:
            with torch.no_grad():
                self._known[node] = self._computed(node)
        return self._known[node]

    def _computed(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return attribute(self._module, str(node.target)).detach()
        if any(value not in self._constant for value in node.all_input_nodes):
            return self._value(node.all_input_nodes[0])  # a batch's expansion
        args, kwargs = fx.map_arg((node.args, node.kwargs), self._value)
        call: Any = self._module.get_submodule(str(node.target)) if node.op == "call_module" else node.target
        return call(*args, **kwargs)


def _computes(node: fx.Node) -> bool:
    """Whether a node makes the same of the same inputs, and a tensor of constants."""
    if node.op == "call_module":
        return True
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    known = isinstance(node.target, torch._ops.OpOverload) or node.target is operator.getitem
    return node.op == "call_function" and not random and (known or node.target is operator.add)
