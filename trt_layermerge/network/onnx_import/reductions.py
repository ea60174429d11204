"""Reductions, as ONNX defines them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from trt_layermerge.network.onnx_import.onnx_graph import Node, OnnxArray
from trt_layermerge.network.onnx_import.sizes import OnnxFunction, setting_of


def over_axes(function: Callable[..., Tensor]) -> Callable[[Node], OnnxFunction]:
    """A rule for a function that takes axes, and whether they stay."""

    def translate(node: Node) -> OnnxFunction:
        keep = bool(node.get("keepdims", 1))

        def run(x: Tensor, axes: OnnxArray | None = None) -> Tensor:
            found = setting_of(node, "axes", axes)
            if not found and node.get("noop_with_empty_axes", 0):
                return x
            dims = tuple(axis % x.dim() for axis in found or range(x.dim()))
            if function is torch.mean and keep and x.dim() == 4 and set(dims) == {2, 3}:
                return F.adaptive_avg_pool2d(x, 1)  # what exporters write for it
            return function(x, dims, keepdim=keep)

        return run

    return translate


def reduce_product(node: Node) -> OnnxFunction:
    """``ReduceProd``: PyTorch's takes one axis."""
    keep = bool(node.get("keepdims", 1))

    def run(x: Tensor, axes: OnnxArray | None = None) -> Tensor:
        for axis in sorted((axis % x.dim() for axis in setting_of(node, "axes", axes) or range(x.dim())), reverse=True):
            x = x.prod(axis, keepdim=keep)
        return x

    return run


REDUCTIONS: dict[str, Callable[[Node], OnnxFunction]] = {
    "ReduceL1": over_axes(lambda x, dims, keepdim: x.abs().sum(dims, keepdim)),
    "ReduceL2": over_axes(lambda x, dims, keepdim: torch.sqrt((x * x).sum(dims, keepdim))),
    "ReduceLogSum": over_axes(lambda x, dims, keepdim: x.sum(dims, keepdim).log()),
    "ReduceLogSumExp": over_axes(torch.logsumexp),
    "ReduceMax": over_axes(torch.amax),
    "ReduceMean": over_axes(torch.mean),
    "ReduceMin": over_axes(torch.amin),
    "ReduceProd": reduce_product,
    "ReduceSum": over_axes(torch.sum),
    "ReduceSumSquare": over_axes(lambda x, dims, keepdim: (x * x).sum(dims, keepdim)),
}
