"""What makes a training run what it is: its recipe, task, initial weights and teacher."""

from __future__ import annotations

from torch import nn

from trt_layermerge.training.checkpoint import Identity, described, digest
from trt_layermerge.training.process_group import ProcessGroup
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Task


def identity_of_run(
    model: nn.Module, teacher: nn.Module | None, task: Task, recipe: Recipe, group: ProcessGroup
) -> Identity:
    """Everything the result depends on, under names that a user understands; a checkpoint of another run is refused."""
    numbers = {
        f"recipe {field}": str(value) if isinstance(value, tuple) else value
        for field, value in recipe.result_fields().items()
    }
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    tensors = {
        f"tensor {name}": described(tensor) + (" frozen" if name in frozen else "")
        for name, tensor in model.state_dict().items()
    }
    return {
        "task": task.name,
        "steps per epoch": task.steps_per_epoch,
        "processes": group.size,
        **numbers,
        **tensors,
        "initial weights": digest(model.state_dict()),
        "teacher": None if teacher is None else digest(teacher.state_dict()),
    }
