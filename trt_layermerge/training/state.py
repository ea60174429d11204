"""What changes from step to step beside the model, as named tensors: the optimiser, the average of the weights."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trt_layermerge.training.recipe import Recipe

LEAST_SIZE = 1e-3
"""Of a parameter, where steps are relative: Adafactor's own."""


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser of all parameters that are not frozen.

    The learning rate of a group is set at each step: the recipe's, times the group's ``scale``.
    """
    relative, members = recipe.optimizer == "relative-adam", defaultdict[tuple[float, float], list[nn.Parameter]](list)
    for parameter in model.parameters():
        if parameter.requires_grad:
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0  # not of biases and norms
            members[decay, _size(parameter) if relative else 1.0].append(parameter)
    groups = [{"params": some, "weight_decay": decay, "scale": scale} for (decay, scale), some in members.items()]
    if recipe.optimizer != "sgd":
        return torch.optim.Adam(groups, lr=recipe.lr)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov)


def _size(parameter: Tensor) -> float:
    """Root of the mean square, to a power of two, for each size is a group; those of next to nothing have to grow.

    Adafactor's relative steps (Shazeer and Stern, arXiv 1804.04235, section 8), by the weights that training begins
    with.
    """
    return 2.0 ** round(math.log2(max(LEAST_SIZE, float(parameter.detach().square().mean().sqrt()))))


def momenta_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers, named ``KIND/PARAMETER``."""
    return {
        f"{kind}/{name}": value
        for name, parameter in model.named_parameters()
        for kind, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def remember(model: nn.Module, optimizer: torch.optim.Optimizer, momenta: Mapping[str, Tensor]) -> None:
    """Let the optimiser remember what it did when ``momenta_of`` was called."""
    parameters = dict(model.named_parameters())
    for key, value in momenta.items():
        kind, _, name = key.partition("/")
        parameter = parameters[name]
        # In the parameter's own layout and place; a count of steps has no layout, and stays on the CPU.
        kept = value.clone() if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
        optimizer.state[parameter][kind] = kept


class Average:
    """The moving average of a model's weights and statistics.

    Attributes:
        values: By their names in the state dict.
    """

    def __init__(self, model: nn.Module) -> None:
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def add(self, model: nn.Module, decay: float) -> None:
        """Go a step of ``1 - decay`` towards the model; what is no real number is taken as it is."""
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take up what an interrupted run had."""
        for name, value in values.items():
            self.values[name].copy_(value)
