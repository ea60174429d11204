"""Activations as the rest of the project names them: one canonical word, with parameters where there are any."""

from __future__ import annotations

from torch import nn

NONNEGATIVE = ("relu", "relu6", "sigmoid", "hardsigmoid")
"""Activations whose output is never below zero, so that a ReLU after them does nothing."""

_PLAIN: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.GELU: "gelu",
    nn.PReLU: "prelu",
    nn.Mish: "mish",
}


def activation_name(module: nn.Module) -> str | None:
    """Canonical name of an elementwise activation, such as ``relu6`` or ``leaky_relu(0.01)``; ``None`` for others."""
    if isinstance(module, nn.Hardtanh):  # before the table: nn.ReLU6 is one
        low, high = float(module.min_val), float(module.max_val)
        return "relu6" if (low, high) == (0.0, 6.0) else f"hardtanh({low:g},{high:g})"
    if isinstance(module, nn.LeakyReLU):
        return f"leaky_relu({module.negative_slope:g})"
    if isinstance(module, nn.ELU):
        return f"elu({module.alpha:g})"
    return _PLAIN.get(type(module))
