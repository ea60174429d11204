"""A task whose loss a test replaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trt_layermerge.training.task import Classification


@dataclass(frozen=True)
class Faulty(Classification):
    """A task with a loss of one's own."""

    replaced: Callable[[Tensor], Any] = lambda loss: loss

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self.replaced(super().loss(output, target))


def faulty(task: Classification, replaced: Callable[[Tensor], Any]) -> Faulty:
    return Faulty(**fields(task), replaced=replaced)


def fields(task: Classification) -> dict[str, object]:
    return {name: getattr(task, name) for name in Classification.__dataclass_fields__}
