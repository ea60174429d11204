"""What a step of training minimises: the task's loss, the teacher's word, and the penalty for gates.

With labels that is (1 - a) task loss + a T^2 KL(teacher || student) with the recipe's distillation weight a and
temperature T (Hinton et al., arXiv 1503.02531). Without labels the teacher's outputs are the targets, and the
task's loss is all.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from trt_layermerge.errors import TaskError
from trt_layermerge.network.device import device_of
from trt_layermerge.network.inputs import Values, each
from trt_layermerge.training.distillation import distillation_loss
from trt_layermerge.training.gating import nonlinearity
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.strides import Unstrided
from trt_layermerge.training.task import Task, Unlabelled
from trt_layermerge.training.task_check import asking, described_value
from trt_layermerge.training.teaching import Part

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def with_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """A recipe with the precision that ``auto`` is on a device; any other as it is."""
    if recipe.precision != "auto":
        return recipe
    fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()  # processors with AMX have that too
    return replace(recipe, precision="bf16" if fast else "fp32")


class Objective:
    """The loss of a batch, with its graph.

    Args:
        model: What is trained.
        wrapped: The same as it is to be called, which several processes share.
        teacher: In evaluation mode; ``None`` where nothing is learned from it.
        task: Whose loss it is.
        recipe: Of the training, with its precision.
    """

    def __init__(
        self, model: nn.Module, wrapped: nn.Module, teacher: nn.Module | None, task: Task, recipe: Recipe
    ) -> None:
        self.model, self.wrapped, self.teacher, self.task, self.recipe = model, wrapped, teacher, task, recipe
        self._device = device_of(model).type

    def taught(self, inputs: tuple[Tensor, ...]) -> Values | None:
        """What the teacher makes of inputs, in float32; may be called in any thread."""
        if self.teacher is None:
            return None
        with self._autocast(), torch.no_grad(), Unstrided():
            output: Values = self.teacher(*inputs)
        return each(output, Tensor.float)

    def __call__(self, part: Part) -> Tensor:
        """Of a part of a batch where the model is, a scalar; targets of a task without labels are not looked at.

        Raises:
            TaskError: The task's loss is no mean that depends on the outputs, or the batch is too small for a norm.
        """
        share, target = self.recipe.distillation, part.target
        with self._autocast():
            output = self._output(part.inputs)
        taught, compares = part.taught(), isinstance(self.task, Unlabelled)
        output = each(output, Tensor.float)
        if taught is not None and compares:
            target = taught
        loss = self._of_task(output, target)
        if taught is not None and not compares:
            message = "of several outputs, which are logits is not known"
            assert isinstance(output, Tensor) and isinstance(taught, Tensor), message
            loss = (1 - share) * loss + share * distillation_loss(output, taught, self.recipe.temperature)
        if self.recipe.gate_penalty > 0:
            loss = loss + self.recipe.gate_penalty * nonlinearity(self.model)
        return loss

    def _autocast(self) -> torch.autocast:
        precision = self.recipe.precision
        return torch.autocast(self._device, AUTOCAST[precision], enabled=precision != "fp32")

    def _of_task(self, output: Values, target: Values) -> Tensor:
        with asking(self.task, "loss"):
            loss = self.task.loss(output, target)
        if not isinstance(loss, Tensor) or loss.ndim != 0:
            found = list(loss.shape) if isinstance(loss, Tensor) else described_value(loss)
            raise TaskError(f"task {self.task.name!r}: loss returns {found}; it must be the batch's mean, a scalar")
        if not loss.requires_grad:
            raise TaskError(
                f"task {self.task.name!r}: loss returns a number that does not depend on the network's output",
                hint="compute it from the output in torch, without detach(), item() or no_grad()",
            )
        return loss

    def _output(self, inputs: tuple[Tensor, ...]) -> Values:
        try:
            output: Values = self.wrapped(*inputs)
        except ValueError as error:  # of a norm that sees one number in a channel
            raise TaskError(
                f"task {self.task.name!r}: {len(inputs[0])} samples at once are too few to train on: {error}",
                hint="make its batches larger, or lower accumulation",
            ) from error
        return output
