from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.methods.graphed import GraphedTraining
from trt_layermerge.training.distillation import distillation_loss
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification

STEPS, BATCH = 5, 8


def task() -> Classification:
    chance = torch.Generator().manual_seed(0)
    images, labels = torch.randn(40, 1, 6, 6, generator=chance), torch.randint(3, (40,), generator=chance)
    data = TensorDataset(images, labels)
    return Classification("random", data, data, held_out=8, calibration=8, batch_size=BATCH)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def by_torch(student: nn.Module, teacher: nn.Module | None, training: GraphedTraining, recipe: Recipe) -> None:
    """The same batches, by torch's own optimiser and clipping."""
    kernels = [one for one in student.parameters() if one.ndim > 1]
    others = [one for one in student.parameters() if one.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=recipe.momentum, nesterov=True)
    student.train()
    for step in range(STEPS):
        training.number.fill_(step)
        images, labels = training._batch()
        made: Tensor = student(images)
        loss = (1 - recipe.distillation) * functional.cross_entropy(made, labels)
        if teacher is not None:
            taught = teacher.eval()(images).detach()
            loss = loss + recipe.distillation * distillation_loss(made, taught, recipe.temperature)
        optimizer.zero_grad()
        loss.backward()
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(student.parameters(), recipe.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(step, STEPS)
        optimizer.step()


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("taught", [False, True])
def test_steps_are_those_of_torch(taught: bool, clip_norm: float | None) -> None:
    recipe = Recipe(steps=STEPS, lr=0.1, clip_norm=clip_norm, distillation=0.5 * taught)
    student, teacher = network(1), network(2) if taught else None
    other = copy.deepcopy(student)
    training = GraphedTraining(student, copy.deepcopy(teacher), task(), recipe, torch.device("cpu"))
    training.run()
    by_torch(other, teacher, training, recipe)
    for (name, made), expected in zip(student.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(made, expected, msg=lambda text, name=name: f"{name}: {text}")
