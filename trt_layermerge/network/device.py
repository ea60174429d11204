"""Where torch computes: naming a device, and putting a network there for a while.

A network is loaded, proved, exported and written on the CPU; only what takes long, measuring importance, solving fits
and training, is worth a device of its own. Runtimes are no matter of this file: an engine has a device by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn

from trt_layermerge.errors import RuntimeNotAvailableError, UsageError, said
from trt_layermerge.network.inputs import Values, as_tuple
from trt_layermerge.network.tf32 import tf32

CPU = torch.device("cpu")


def device_named(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` names; ``auto`` is the GPU, if torch sees one.

    Raises:
        RuntimeNotAvailableError: It is not here.
        UsageError: This names none.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UsageError(f"there is no device {name!r}", hint="write auto, cpu, cuda, or cuda:1 for the second GPU")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return CPU
    device = torch.device("cuda" if name == "auto" else name)
    if (device.index or 0) >= count:
        raise RuntimeNotAvailableError(
            f"device {name} is not here: torch {torch.__version__} sees {count or 'no'} GPU{'s' * (count > 1)}",
            hint="pass --device auto for what there is; trt-layermerge doctor tells of driver and GPU, and a torch "
            "built for the CPU alone sees none",
        )
    return device


def device_of(module: nn.Module) -> torch.device:
    """Where a module's first parameter or buffer lives; the CPU if it has none."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return CPU


def moved(values: Values, device: torch.device) -> tuple[Tensor, ...]:
    """A batch on a device, input by input."""
    return tuple(part.to(device) for part in as_tuple(values))


def move(module: nn.Module, device: torch.device) -> None:
    """Move a module, and with it the tensors that its graphs make: ``torch.export`` writes their device down."""
    module.to(device)
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            _rewrite_devices(part, device)


@contextmanager
def placed(module: nn.Module, device: torch.device, *, rounding: bool = False) -> Iterator[None]:
    """A module on a device while inside, where it was after, whatever happens.

    Args:
        module: Is changed in place.
        device: Where to.
        rounding: Leave it to torch whether convolutions on a GPU round to TF32. They do not where not told: what is
            measured and solved there is then what it is on a CPU, but for the order of sums.

    Raises:
        RuntimeNotAvailableError: The device has too little memory for what is done inside.
    """
    before = device_of(module)
    try:
        move(module, device)
        with nullcontext() if rounding else tf32(allowed=False):
            yield
    except torch.OutOfMemoryError as error:
        raise RuntimeNotAvailableError(
            f"the GPU has too little memory for this: {said(error)}",
            hint="end what else holds its memory, take smaller batches in the task or a smaller --max-kernel, or pass "
            "--device cpu; the same command goes on where it stopped",
        ) from error
    finally:
        move(module, before)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # torch would keep the memory, and engines are built and timed in other processes


def _rewrite_devices(module: fx.GraphModule, device: torch.device) -> None:
    def there(argument: Any) -> Any:
        return device if isinstance(argument, torch.device) else argument

    changed = False
    for node in module.graph.nodes:
        args, kwargs = (fx.node.map_aggregate(given, there) for given in (node.args, node.kwargs))
        if (args, kwargs) != (node.args, node.kwargs):
            node.args, node.kwargs, changed = args, kwargs, True
    if changed:
        module.recompile()
