"""The structure of a part of a graph: everything its latency depends on, and no weights and no names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from torch import fx


def structure_of(module: fx.GraphModule, nodes: Sequence[fx.Node], start: fx.Node) -> str:
    """A hash that is the same for parts that compute the same operations on tensors of the same shapes.

    Args:
        module: The normal form.
        nodes: The part, in order of execution.
        start: The one tensor from outside that it reads.
    """
    numbers = {start: 0} | {node: number for number, node in enumerate(nodes, 1)}

    def told(argument: Any) -> Any:
        """An argument as text: nodes by their place; other tensors are parameters, of which the shape counts."""
        return fx.node.map_arg(argument, lambda node: f"%{numbers[node]}" if node in numbers else _shape(module, node))

    lines = [f"{start.meta.get('shape')}"]
    for node in nodes:
        if node.op == "call_module":
            what = repr(module.get_submodule(str(node.target)))
        elif node.op == "get_attr":
            what = _shape(module, node)
        else:
            what = str(node.target)
        lines.append(f"{what} {told(node.args)} {told(node.kwargs)} {node.meta.get('shape')}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _shape(module: fx.GraphModule, node: fx.Node) -> str:
    if node.op != "get_attr":
        return "input"
    owner, _, name = str(node.target).rpartition(".")
    value = getattr(module.get_submodule(owner), name)
    return f"parameter{tuple(getattr(value, 'shape', ()))}"
