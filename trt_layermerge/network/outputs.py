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

_NAMES = "output_names"
"""Where a normal form keeps its outputs' names, among what it knows of itself."""


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
    if result is None:
        return
    if isinstance(result, Mapping):
        inner = [(str(key), value) for key, value in result.items()]
    elif isinstance(result, tuple) and hasattr(result, "_fields"):
        inner = list(zip(result._fields, result, strict=True))
    elif isinstance(result, (list, tuple)):
        inner = [(str(index), value) for index, value in enumerate(result)]
    elif dataclasses.is_dataclass(result):
        inner = [(field.name, getattr(result, field.name)) for field in dataclasses.fields(result)]
    else:
        yield name, result
        return
    for part, value in inner:
        yield from _leaves(f"{name}.{part}", value)


def let_export_return(result: Any) -> None:
    """Make known to ``torch.export`` every dataclass in a result, which it would refuse."""
    if dataclasses.is_dataclass(result) and type(result) not in pytree.SUPPORTED_NODES:
        torch.export.register_dataclass(type(result))
    for _, value in _held(result):
        let_export_return(value)


def _held(result: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(result, Mapping):
        yield from ((str(key), value) for key, value in result.items())
    elif isinstance(result, (list, tuple)):
        yield from ((str(index), value) for index, value in enumerate(result))
    elif dataclasses.is_dataclass(result):
        yield from ((field.name, getattr(result, field.name)) for field in dataclasses.fields(result))


def name_outputs(module: fx.GraphModule, names: tuple[str, ...]) -> None:
    """Give a normal form the names of its outputs; copies of it have them too."""
    module.meta[_NAMES] = names


def output_names(module: nn.Module) -> tuple[str, ...]:
    """The names of a network's outputs, in order; of one that is no normal form, ``output``."""
    names = module.meta.get(_NAMES) if isinstance(module, fx.GraphModule) else None
    return names or (OUTPUT,)
