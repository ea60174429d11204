"""Operators with weights, as real modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from trt_layermerge.network.onnx_import.onnx_graph import Node, OnnxArray
from trt_layermerge.network.padding import PaddedConv2d

LayerRule = Callable[..., nn.Module | None]
"""From a node and its constant inputs but the first to a module that is called on the first."""


class SameConv2d(nn.Conv2d):
    """A convolution that pads its input so that only its stride makes it smaller: ONNX's ``auto_pad``.

    Attributes:
        upper: Of an odd number of zeros, the larger half goes behind.
    """

    upper: bool = True

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve ``[batch, channels, height, width]``."""
        extents = [1 + (k - 1) * d for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        return super().forward(F.pad(x, same_padding(x, extents, self.stride, upper=self.upper)))


class AnyBatchNorm(BatchNorm):
    """A batch norm for inputs of any rank, which a node does not tell."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


class InstanceNorm(nn.Module):
    """An instance norm for inputs of any rank."""

    def __init__(self, weight: OnnxArray, bias: OnnxArray, eps: float) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = parameter(weight), parameter(bias), eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[batch, channels, ...]``."""
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


def parameter(array: OnnxArray) -> nn.Parameter:
    """A trainable copy."""
    return nn.Parameter(torch.from_numpy(np.array(array, order="C")))


class UnsupportedError(ValueError):
    """A node that we know, in a form that we do not; who reads it says which node."""


def same_padding(x: Tensor, extents: Sequence[int], strides: Sequence[int], *, upper: bool) -> list[int]:
    """Zeros in the order of ``F.pad`` that make an output of ``ceil(size / stride)``."""
    sides: list[int] = []
    for size, extent, stride in zip(x.shape[2:], extents, strides, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + extent - size)
        small, large = total // 2, total - total // 2
        sides = [*((small, large) if upper else (large, small)), *sides]
    return sides


def explicit_pads(node: Node, dims: int) -> list[int]:
    """``pads``, all before and then all after; ``auto_pad`` has been looked at."""
    return list(node.get("pads") or [0] * (2 * dims))


def _filled(module: nn.Module, weight: OnnxArray, bias: OnnxArray | None) -> nn.Module:
    module.weight = parameter(weight)
    if bias is not None:
        module.bias = parameter(bias)
    return module


def _conv(node: Node, weight: OnnxArray, bias: OnnxArray | None = None) -> nn.Module | None:
    if weight.ndim != 4:
        return None
    top, left, bottom, right = explicit_pads(node, 2)
    auto = node.get("auto_pad", "NOTSET")
    kind: type[nn.Conv2d] = SameConv2d if auto.startswith("SAME") else nn.Conv2d
    even = auto == "NOTSET" and (top, left) == (bottom, right)
    groups = node.get("group", 1)
    conv = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        tuple(node.get("strides") or (1, 1)),
        (top, left) if even else 0,
        tuple(node.get("dilations") or (1, 1)),
        groups,
        bias=bias is not None,
        device="meta",
    )
    _filled(conv, weight, bias)
    if isinstance(conv, SameConv2d):
        conv.upper = auto == "SAME_UPPER"
    return conv if even or auto != "NOTSET" else PaddedConv2d(conv, (top, left, bottom, right))


def _conv_transpose(node: Node, weight: OnnxArray, bias: OnnxArray | None = None) -> nn.Module | None:
    pads, groups = explicit_pads(node, 2), node.get("group", 1)
    plain = node.get("auto_pad", "NOTSET") == "NOTSET" and not node.get("output_shape")
    if weight.ndim != 4 or not plain or pads[:2] != pads[2:]:
        return None
    conv = nn.ConvTranspose2d(
        weight.shape[0],
        weight.shape[1] * groups,
        tuple(weight.shape[2:]),
        tuple(node.get("strides") or (1, 1)),
        (pads[0], pads[1]),
        tuple(node.get("output_padding") or (0, 0)),
        groups,
        bias is not None,
        tuple(node.get("dilations") or (1, 1)),
        device="meta",
    )
    return _filled(conv, weight, bias)


def _batch_norm(node: Node, weight: OnnxArray, bias: OnnxArray, mean: OnnxArray, var: OnnxArray) -> nn.Module:
    if node.get("training_mode", 0) or len([name for name in node.outputs if name]) > 1:
        raise UnsupportedError("it is in training mode; export the model in evaluation mode")
    norm = AnyBatchNorm(len(mean), node.get("epsilon", 1e-5), 1 - node.get("momentum", 0.9))
    norm.running_mean, norm.running_var = parameter(mean).data, parameter(var).data
    return _filled(norm, weight, bias)


def _instance_norm(node: Node, weight: OnnxArray, bias: OnnxArray) -> nn.Module:
    return InstanceNorm(weight, bias, node.get("epsilon", 1e-5))


def _group_norm(node: Node, weight: OnnxArray, bias: OnnxArray) -> nn.Module:
    return _filled(nn.GroupNorm(node.get("num_groups"), len(weight), node.get("epsilon", 1e-5)), weight, bias)


def _linear(weight: OnnxArray, bias: OnnxArray | None) -> nn.Module:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _filled(module, weight, bias)


def _gemm(node: Node, weight: OnnxArray, bias: OnnxArray | None = None) -> nn.Module | None:
    if node.get("transA", 0):
        return None
    weight = weight if node.get("transB", 0) else weight.T
    if bias is not None:
        bias = np.broadcast_to(bias * bias.dtype.type(node.get("beta", 1.0)), weight.shape[:1])
    return _linear(weight * weight.dtype.type(node.get("alpha", 1.0)), bias)


def _matmul(_node: Node, weight: OnnxArray) -> nn.Module | None:
    return _linear(weight.T, None) if weight.ndim == 2 else None


def _prelu(_node: Node, slope: OnnxArray) -> nn.Module | None:
    each = slope.size == 1 or (slope.ndim >= 3 and slope.size == slope.shape[-3])
    return _filled(nn.PReLU(slope.size, device="meta"), slope.reshape(-1), None) if each else None


LAYERS: dict[str, LayerRule] = {
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "MatMul": _matmul,
    "PRelu": _prelu,
}
"""Operator -> rule; a rule returns ``None`` where the operator is to stay a function."""


def layer(node: Node, constants: Sequence[Any]) -> nn.Module | None:
    """The module of a node, if it is a layer: its inputs but the first are constants.

    Raises:
        UnsupportedError: It is a layer in a form that PyTorch does not have.
    """
    rule = LAYERS.get(node.op)
    return None if rule is None or any(constant is None for constant in constants) else rule(node, *constants)
