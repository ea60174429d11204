"""Parts of tensors, as ONNX defines them: slices, splits, and what is picked by numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trt_layermerge.network.onnx_import.layers import UnsupportedError
from trt_layermerge.network.onnx_import.onnx_graph import Node, OnnxArray
from trt_layermerge.network.onnx_import.sizes import OnnxFunction, listed, setting_of


def _slice(node: Node) -> OnnxFunction:
    def run(
        x: Tensor, starts: OnnxArray | None = None, ends: OnnxArray | None = None, *rest: OnnxArray | None
    ) -> Tensor:
        begin, end = setting_of(node, "starts", starts) or [], setting_of(node, "ends", ends) or []
        axes, steps = (*rest, None, None)[:2]
        step = listed(steps) or [1] * len(begin)
        spans = [slice(None)] * x.dim()
        for i, axis in enumerate(setting_of(node, "axes", axes) or range(len(begin))):
            if step[i] > 0:
                spans[axis] = slice(begin[i], end[i], step[i])
            else:
                x = _backwards(x, axis, slice(begin[i], end[i], step[i]))
        return x[tuple(spans)]

    return run


def _backwards(x: Tensor, axis: int, span: slice) -> Tensor:
    picks = list(range(*span.indices(x.shape[axis])))
    if picks == list(reversed(range(x.shape[axis]))):
        return x.flip(axis)
    return x.index_select(axis, torch.tensor(picks, dtype=torch.int64))


def _split(node: Node) -> OnnxFunction:
    def run(x: Tensor, sizes: OnnxArray | None = None) -> list[Tensor]:
        axis, found = node.get("axis", 0), setting_of(node, "split", sizes)
        if found is None:
            found = -(-x.shape[axis] // len(node.outputs))
        return list(torch.split(x, found, axis))

    return run


def _split_to_sequence(node: Node) -> OnnxFunction:
    def run(x: Tensor, sizes: OnnxArray) -> list[Tensor]:
        return list(torch.split(x, int(sizes) if sizes.ndim == 0 else sizes.tolist(), node.get("axis", 0)))

    return run


def _gather(node: Node) -> OnnxFunction:
    axis = node.get("axis", 0)

    def run(x: Tensor, indices: OnnxArray | Tensor) -> Tensor:
        if isinstance(indices, Tensor) or indices.ndim > 1:
            return _gathered(x, axis, indices)
        if indices.ndim == 0:
            return x.select(axis, int(indices))
        spans: list[Any] = [slice(None)] * x.dim()
        spans[axis] = listed(indices)
        return x[tuple(spans)]

    return run


def _gathered(x: Tensor, axis: int, indices: OnnxArray | Tensor) -> Tensor:
    """With indices of any shape, which takes the place of the axis; less than nothing counts from the end."""
    picks = indices if isinstance(indices, Tensor) else torch.tensor(indices.tolist(), dtype=torch.int64)
    picks = torch.where(picks < 0, picks + x.shape[axis], picks).long()
    axis %= x.dim()
    picked = x.index_select(axis, picks.reshape(-1))
    return picked.reshape(*x.shape[:axis], *picks.shape, *x.shape[axis + 1 :])


def gather_elements(node: Node) -> OnnxFunction:
    """``GatherElements``."""
    axis = node.get("axis", 0)
    return lambda x, indices: x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices).long())


def _arg(function: Callable[..., Tensor]) -> Callable[[Node], OnnxFunction]:
    def translate(node: Node) -> OnnxFunction:
        if node.get("select_last_index", 0):
            raise UnsupportedError("PyTorch returns the first of several that are equal")
        return lambda x: function(x, node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))

    return translate


def _top(node: Node) -> OnnxFunction:
    largest, in_order = bool(node.get("largest", 1)), bool(node.get("sorted", 1))

    def run(x: Tensor, k: OnnxArray | None = None) -> list[Tensor]:
        (count,) = setting_of(node, "k", k) if k is not None else (node.get("k"),)  # type: ignore[misc]
        return list(torch.topk(x, int(count), node.get("axis", -1), largest, in_order))

    return run


INDEXING: dict[str, Callable[[Node], OnnxFunction]] = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "SplitToSequence": _split_to_sequence,
    "TopK": _top,
}
