"""Losses without the chance that is in labels: their mean over the labels that the original thinks likely.

What a small change does to the loss of a thousand samples is mostly a matter of which of them have which label. The
mean over labels differs from the original's own by the divergence of the changed outputs from the original's, which is
never below 0: no change seems to be a gain by chance, and a planner picks none for its luck.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trt_layermerge.network.device import CPU, device_of, moved
from trt_layermerge.network.inputs import Values, as_tuple
from trt_layermerge.network.network import Network
from trt_layermerge.training.task import Expecting, Task

Sample = tuple[tuple[Tensor, ...], Values]


@dataclass(frozen=True)
class ExpectedLoss:
    """Loss and metric of a task for targets that have the original's outputs before the labels.

    Attributes:
        task: The task.
    """

    task: Task

    @property
    def name(self) -> str:
        """The task's."""
        return self.task.name

    def loss(self, output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        """Mean over samples, and over the labels of each as the original has them."""
        assert isinstance(self.task, Expecting)
        return self.task.expected_loss(output, target[0])

    def metric(self, output: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        """The task's, by the labels."""
        return self.task.metric(output, target[1])


def beside_outputs(network: Network, samples: Iterable[Sample]) -> Iterator[Sample]:
    """Samples with what a network makes of them before their labels."""
    device = device_of(network.module)
    for inputs, labels in samples:
        with torch.inference_mode():
            (output,) = as_tuple(network.module(*moved(inputs, device)))
        yield inputs, (output.to(CPU), *as_tuple(labels))
