"""What a network returns: one tensor or several, whatever holds them, by order and name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from trt_layermerge.errors import ModelError

OUTPUT = "output"
"""Name of the one output of a network that gives it none."""

_NAMES = "names"
"""Where the output node of a graph keeps the outputs' names; copies of a graph copy that."""


def named_outputs(result: Any) -> dict[str, Tensor]:
    """The tensors of what a ``forward()`` returned, by name, in order.

    1. A tensor alone is ``output``; a mapping, a named tuple and a dataclass name what they hold.
    2. What stands in a list or a tuple is numbered, unless it is all there is.
    3. ``None`` is nothing: an auxiliary head that evaluation leaves out.

    Raises:
        ModelError: There is no tensor, or something else.
    """
    found = {name.lstrip(".") or OUTPUT: value for name, value in _leaves("", result)}
    other = {name: type(value).__name__ for name, value in found.items() if not isinstance(value, Tensor)}
    if other or not found:
        kind = "no tensor" if not other else f"no tensor alone, but {', '.join(map(' '.join, other.items()))}"
        raise ModelError(
            f"the model returns {kind}", hint="wrap it in a module whose forward() returns the tensors that matter"
        )
    if len(found) == 1 and all(part.isdecimal() for part in next(iter(found)).split(".")):
        found = {OUTPUT: next(iter(found.values()))}
    return {f"{OUTPUT}_{name}" if name[0].isdecimal() else name: value for name, value in found.items()}


def _leaves(name: str, result: Any) -> Iterator[tuple[str, Any]]:
    held = _held(result)
    if held is None:
        yield name, result
        return
    for part, value in held:
        if value is not None:
            yield from _leaves(f"{name}.{part}", value)


def _held(result: Any) -> list[tuple[str, Any]] | None:
    """What something holds, by name or number; ``None`` where it holds nothing."""
    if isinstance(result, Mapping):
        return [(str(key), value) for key, value in result.items()]
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return list(zip(result._fields, result, strict=True))
    if isinstance(result, (list, tuple)):
        return [(str(index), value) for index, value in enumerate(result)]
    if dataclasses.is_dataclass(result):
        return [(field.name, getattr(result, field.name)) for field in dataclasses.fields(result)]
    return None


def let_export_return(result: Any) -> None:
    """Make known to ``torch.export`` every dataclass and mapping in a result, which it would refuse."""
    kind = type(result)
    if dataclasses.is_dataclass(result) and kind not in pytree.SUPPORTED_NODES:
        torch.export.register_dataclass(kind)
    if isinstance(result, Mapping) and kind not in pytree.SUPPORTED_NODES:
        pytree.register_pytree_node(
            kind,
            lambda mapping: (list(mapping.values()), list(mapping)),
            lambda values, keys: dict(zip(keys or (), values, strict=True)),
        )
    for _, value in _held(result) or []:
        let_export_return(value)


def name_outputs(module: fx.GraphModule, names: tuple[str, ...]) -> None:
    """Give a normal form the names of its outputs; copies of it have them too."""
    output_node(module.graph).meta[_NAMES] = names


def output_names(module: nn.Module) -> tuple[str, ...]:
    """The names of a network's outputs, in order; of one that is no normal form, ``output``."""
    held = output_node(module.graph).meta if isinstance(module, fx.GraphModule) else {}
    names: tuple[str, ...] = held.get(_NAMES, ())
    return names or (OUTPUT,)


def output_node(graph: fx.Graph) -> fx.Node:
    """The node by which a graph returns what it does."""
    node: fx.Node
    (node,) = (node for node in graph.nodes if node.op == "output")
    return node
