"""Which ATen operators become real modules in the normal form, and how.

A rule takes the number of dimensions of an operator's result and the operator's arguments but the first; it returns
the module that computes it, with the place in the source's state dict where its parameters live. What has no rule stays
the function that it is. Rules know no operators that write in place: see ``out_of_place``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

aten = torch.ops.aten


@dataclass(frozen=True)
class Parameter:
    """A parameter or buffer of the source, by its name in the state dict."""

    name: str
    value: Tensor

    @property
    def owner(self) -> str:
        """Name of the module that holds it: what stands before the last dot."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True)
class ModuleCall:
    """A module to put in the place of an operator.

    Attributes:
        module: The module, with its parameters not yet loaded.
        owner: Where it goes; ``None`` where it has no parameters and any free name will do.
        parameters: State-dict entries of the source, by their name inside the module.
    """

    module: nn.Module
    owner: str | None = None
    parameters: tuple[tuple[str, Parameter], ...] = ()


ModuleRule = Callable[..., ModuleCall | None]

BATCH_NORMS: dict[int, type[nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}
"""The batch norm for inputs of so many dimensions."""


def out_of_place(target: Any) -> Any:
    """The operator that returns what ``target`` writes into its first argument; any other operator as it is.

    A view becomes a reshape: what made its argument contiguous may be gone.
    """
    if target is aten.view.default:
        return aten.reshape.default
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return target
    name = schema.name.partition("::")[2]
    return getattr(getattr(aten, name.removesuffix("_"), None), schema.overload_name or "default", target)


def _named(**entries: Parameter | None) -> tuple[tuple[str, Parameter], ...]:
    return tuple((name, entry) for name, entry in entries.items() if entry is not None)


def _owned(module: nn.Module, **entries: Parameter | None) -> ModuleCall | None:
    """The call, if all parameters live in one module of the source under their usual names."""
    named = _named(**entries)
    if not all(isinstance(entry, Parameter) for _, entry in named):
        return None  # computed: a pass looks at those (passes/computed_filters.py)
    owners = {entry.owner for _, entry in named}
    usual = all(entry.name.rpartition(".")[2] == name for name, entry in named)
    return ModuleCall(module, owners.pop(), named) if len(owners) == 1 and usual else None


def _pair(value: Sequence[int] | int) -> tuple[int, int]:
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])


def _conv2d(
    _dims: int,
    weight: Any,
    bias: Any = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> ModuleCall | None:
    if not isinstance(weight, Parameter) or not (bias is None or isinstance(bias, Parameter)):
        return None  # a computed weight is no layer of ours
    out_channels, per_group, height, width = weight.value.shape
    module = nn.Conv2d(
        per_group * groups,
        out_channels,
        (height, width),
        _pair(stride),
        padding if isinstance(padding, str) else _pair(padding),
        _pair(dilation),
        groups,
        bias=bias is not None,
    )
    owned = _owned(module, weight=weight, bias=bias)
    if owned is None and bias is None and not isinstance(weight.value, nn.Parameter):
        # A filter, such as a blur: its weights are a buffer, and stay what they are until it is merged.
        module.weight = nn.Parameter(weight.value.detach().clone(), requires_grad=False)
        return ModuleCall(module)
    return owned


def _conv_transpose2d(
    _dims: int,
    weight: Any,
    bias: Any = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0),
    output_padding: Any = (0, 0),
    groups: int = 1,
    dilation: Any = (1, 1),
) -> ModuleCall | None:
    if not isinstance(weight, Parameter) or not (bias is None or isinstance(bias, Parameter)):
        return None  # as of a convolution
    in_channels, per_group, height, width = weight.value.shape
    module = nn.ConvTranspose2d(
        in_channels,
        per_group * groups,
        (height, width),
        _pair(stride),
        _pair(padding),
        _pair(output_padding),
        groups,
        bias is not None,
        _pair(dilation),
    )
    return _owned(module, weight=weight, bias=bias)


def _batch_norm(
    dims: int,
    weight: Any,
    bias: Any,
    mean: Any,
    var: Any,
    training: bool,
    momentum: float,
    eps: float,
    _cudnn: bool = False,
) -> ModuleCall | None:
    if training or not isinstance(mean, Parameter) or not isinstance(var, Parameter):
        return None  # statistics of the batch itself: not an affine map
    module = BATCH_NORMS[dims](len(mean.value), eps, momentum, affine=weight is not None)
    return _owned(module, weight=weight, bias=bias, running_mean=mean, running_var=var)


def _native_batch_norm(
    dims: int, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float
) -> ModuleCall | None:
    return _batch_norm(dims, weight, bias, mean, var, False, momentum, eps)


def _group_norm(
    _dims: int, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, _cudnn: bool = False
) -> ModuleCall | None:
    if not isinstance(weight, Parameter):
        return None
    return _owned(nn.GroupNorm(groups, len(weight.value), eps), weight=weight, bias=bias)


def _linear(_dims: int, weight: Any, bias: Any = None) -> ModuleCall | None:
    if not isinstance(weight, Parameter) or not (bias is None or isinstance(bias, Parameter)):
        return None
    out_features, in_features = weight.value.shape
    return _owned(nn.Linear(in_features, out_features, bias=bias is not None), weight=weight, bias=bias)


def _prelu(_dims: int, weight: Any) -> ModuleCall | None:
    return _owned(nn.PReLU(len(weight.value)), weight=weight) if isinstance(weight, Parameter) else None


def _free(make: Callable[..., nn.Module]) -> ModuleRule:
    """A rule for a module without parameters, made from the operator's other arguments."""

    def rule(_dims: int, *args: Any, **kwargs: Any) -> ModuleCall:
        return ModuleCall(make(*args, **kwargs))

    return rule


def _elu(_dims: int, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> ModuleCall | None:
    return ModuleCall(nn.ELU(alpha)) if scale == input_scale == 1 else None


def _avg_pool2d(
    _dims: int,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
) -> ModuleCall:
    step = _pair(stride) if stride else None  # an empty one is the kernel's
    return ModuleCall(nn.AvgPool2d(_pair(kernel), step, _pair(padding), ceil_mode, count_include_pad, divisor))


def _hardtanh(low: float = -1.0, high: float = 1.0) -> nn.Module:
    return nn.ReLU6() if (low, high) == (0, 6) else nn.Hardtanh(low, high)


def _rrelu(low: float = 1 / 8, high: float = 1 / 3, *_: Any) -> nn.Module:
    return nn.LeakyReLU((low + high) / 2)  # what evaluation makes of it


def _gelu(approximate: Literal["none", "tanh"] = "none") -> nn.Module:
    return nn.GELU(approximate)


MODULE_RULES: dict[Any, ModuleRule] = {
    aten.conv2d.default: _conv2d,
    aten.conv2d.padding: _conv2d,
    aten.conv_transpose2d.input: _conv_transpose2d,
    aten.batch_norm.default: _batch_norm,
    aten.instance_norm.default: _batch_norm,  # the same arguments: with running statistics, it is one
    aten._native_batch_norm_legit_no_training.default: _native_batch_norm,
    aten.avg_pool2d.default: _avg_pool2d,
    aten.group_norm.default: _group_norm,
    aten.linear.default: _linear,
    aten.prelu.default: _prelu,
    aten.dropout.default: _free(lambda p, _train: nn.Dropout(p)),
    aten.feature_dropout.default: _free(lambda p, _train: nn.Dropout2d(p)),
    aten.relu.default: _free(nn.ReLU),
    aten.relu6.default: _free(nn.ReLU6),
    aten.silu.default: _free(nn.SiLU),
    aten.hardswish.default: _free(nn.Hardswish),
    aten.hardsigmoid.default: _free(nn.Hardsigmoid),
    aten.sigmoid.default: _free(nn.Sigmoid),
    aten.tanh.default: _free(nn.Tanh),
    aten.mish.default: _free(nn.Mish),
    aten.leaky_relu.default: _free(nn.LeakyReLU),
    aten.rrelu.default: _free(_rrelu),
    aten.hardtanh.default: _free(_hardtanh),
    aten.gelu.default: _free(_gelu),
    aten.elu.default: _elu,
}
"""Operator -> rule for what follows its first argument."""

PASS_THROUGH = {aten.alias.default, aten.contiguous.default, aten.detach.default, aten.lift_fresh_copy.default}
"""Operators that return their first argument."""

ASSERTIONS = {aten._assert_tensor_metadata.default, aten._assert_scalar.default, aten._assert_async.msg}
"""Operators that only check what tracing has checked already."""

WITHOUT_EFFECT: dict[Any, Callable[..., bool]] = {
    aten.add.Tensor: lambda other, **_: _is_zero(other),
    aten.sub.Tensor: lambda other, **_: _is_zero(other),
    aten.div.Tensor: lambda other, **kwargs: _is_one(other) and not kwargs,
    aten.mul.Tensor: lambda other: _is_one(other),
    aten.dropout.default: lambda p, _train: p == 0,
    aten.to.dtype: lambda _dtype, *_: True,
    aten.slice.Tensor: lambda _dim=0, start=None, end=None, step=1: not start and _is_end(end) and step == 1,
}
"""Operators that return their first argument for such other ones, if the type of numbers stays."""


def _is_zero(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == 0


def _is_one(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == 1


def _is_end(value: Any) -> bool:
    """Whether a slice that ends there takes everything: what ``x[0:]`` is traced to."""
    return value is None or (isinstance(value, int) and value >= 2**63 - 1)
