"""Training alone, or in several processes of ``accelerate`` that share every batch.

A process group says where to train, wraps the model so that gradients are the mean over all members, and keeps them in
step.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.extras import install_hint


class ProcessGroup(Protocol):
    """The processes of one training run.

    Attributes:
        rank: Number of this one; 0 writes the files.
        size: How many there are.
    """

    rank: int
    size: int

    def device(self, before: torch.device) -> torch.device:
        """Where this member trains a model that is on ``before``."""
        ...

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model, on its device, with gradients that are the mean over all members."""
        ...

    def alone(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Gradients of a wrapped model are not shared while inside: another part of the batch follows."""
        ...

    def mean(self, value: float) -> float:
        """Mean of a number over all members."""
        ...

    def wait(self) -> None:
        """Go on when all members are here."""
        ...


class Alone:
    """A process group of one: this process.

    Args:
        device: Where it trains; where the model is if not given.
    """

    rank, size = 0, 1

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device

    def device(self, before: torch.device) -> torch.device:
        """The one that it was told, or where the model is."""
        return before if self._device is None else self._device

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model itself."""
        return model

    def alone(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Nothing is shared."""
        return nullcontext()

    def mean(self, value: float) -> float:
        """The number."""
        return value

    def wait(self) -> None:
        """Nobody is missing."""


class Accelerated:
    """The processes that ``accelerate launch`` or ``torchrun`` has started, one for each device.

    Mixed precision, gradient accumulation and saving stay with the loop, which has to resume them exactly.

    Raises:
        RuntimeNotAvailableError: ``accelerate`` is not installed.
    """

    def __init__(self, *, cpu: bool = False) -> None:
        try:
            from accelerate import Accelerator
            from accelerate.utils import InitProcessGroupKwargs
        except ImportError as error:
            raise RuntimeNotAvailableError(
                "training in several processes needs accelerate, which is not installed",
                hint=install_hint("multi-gpu", "accelerate"),
            ) from error
        # Members may have to wait for as long as the first one measures latencies and importances.
        patience = InitProcessGroupKwargs(timeout=timedelta(days=7))
        self._accelerator = Accelerator(cpu=cpu, kwargs_handlers=[patience])
        self.rank, self.size = int(self._accelerator.process_index), int(self._accelerator.num_processes)

    def device(self, before: torch.device) -> torch.device:
        """The member's own."""
        return torch.device(self._accelerator.device)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model in ``DistributedDataParallel``, if there are several members."""
        wrapped: nn.Module = self._accelerator.prepare_model(model)
        return wrapped

    def alone(self, model: nn.Module) -> AbstractContextManager[Any]:
        """The model's ``no_sync``."""
        context: AbstractContextManager[Any] = self._accelerator.no_sync(model)
        return context

    def mean(self, value: float) -> float:
        """Reduced over all members."""
        reduced: Tensor = self._accelerator.reduce(
            torch.tensor(value, dtype=torch.float64, device=self._accelerator.device), "mean"
        )
        return float(reduced)

    def wait(self) -> None:
        """A barrier."""
        self._accelerator.wait_for_everyone()


def group(device: torch.device) -> ProcessGroup:
    """Several processes where a launcher has started them, else this one alone.

    Args:
        device: Where to train. Of several processes each keeps its own GPU; only whether it is one is heard.

    Raises:
        RuntimeNotAvailableError: A launcher has started several, and ``accelerate`` is not installed.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return Accelerated(cpu=device.type == "cpu") if several else Alone(device)
