"""Taking a network out of what training scripts wrap it in."""

from __future__ import annotations

import copy
from contextlib import suppress
from itertools import chain

import torch
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from trt_layermerge.errors import ModelError

_WRAPPERS: dict[type[nn.Module], str] = {
    nn.DataParallel: "module",
    DistributedDataParallel: "module",
    AveragedModel: "module",
    OptimizedModule: "_orig_mod",
}
"""Modules that compute what another one does, and where they hold it."""


def in_evaluation(module: nn.Module) -> nn.Module:
    """The same module in evaluation mode, whatever a ``train()`` of its own returns.

    One that was exported is in the mode that it was exported in, and knows no other.
    """
    with suppress(NotImplementedError):
        module.eval()
    return module


def unwrapped(module: nn.Module, *, own: bool = False) -> tuple[nn.Module, tuple[str, ...]]:
    """A module as it computes in float32, and what was done to it, in words.

    1. What only runs another module in parallel, or compiled, or averages it, is taken off, around it and inside of it.
    2. Parameters and buffers of other widths are cast to float32: engines of lower precision are made from that.

    Args:
        module: The module.
        own: It may be changed in place; else what has to be changed is a copy.

    Raises:
        ModelError: Parameters of it have no shape yet.
    """
    if lazy := [name for name, value in chain(module.named_parameters(), module.named_buffers()) if is_lazy(value)]:
        raise ModelError(
            f"{type(module).__name__} has parameters without a shape: {', '.join(lazy[:3])}",
            hint="run it once in its factory, which gives lazy layers their shapes: net(torch.zeros(1, *INPUT_SHAPE))",
        )
    notes = []
    while (inner := _inside(module)) is not None:
        notes.append(f"taken out of {type(module).__name__}")
        module = inner
    tensors = chain(module.parameters(), module.buffers())
    floats = {value.dtype for value in tensors if value.is_floating_point()}
    widths = sorted(str(width).removeprefix("torch.") for width in floats - {torch.float32})
    parts = [(name, inner) for name, part in module.named_modules() if (inner := _inside(part)) is not None]
    compiled = any(part._compiled_call_impl is not None for part in module.modules())
    if not own and (widths or parts or compiled):
        module = copy.deepcopy(module)
    for part in module.modules():
        part._compiled_call_impl = None
    for name, _ in parts:
        wrapper = module.get_submodule(name)
        notes.append(f"{name} taken out of {type(wrapper).__name__}")
        while (inner := _inside(wrapper)) is not None:
            wrapper = inner
        module.set_submodule(name, wrapper)
    if widths:
        notes.append(f"cast from {' and '.join(widths)} to float32")
        module.float()
    return module, tuple(notes)


def _inside(module: nn.Module) -> nn.Module | None:
    """What a wrapper holds; ``None`` for anything else."""
    place = next((place for kind, place in _WRAPPERS.items() if isinstance(module, kind)), None)
    return None if place is None else module.get_submodule(place)
