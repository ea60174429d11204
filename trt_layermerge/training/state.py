"""What changes from step to step beside the model, as named tensors: the optimiser, the average of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trt_layermerge.training.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser of all parameters that are not frozen; its learning rate is set at each step."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},  # biases and norms
    ]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.lr)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov)


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
