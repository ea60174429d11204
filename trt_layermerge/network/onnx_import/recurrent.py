"""Recurrent layers, as ONNX defines them: ``LSTM``, ``GRU`` and ``RNN`` behind the convolutions of text recognisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trt_layermerge.network.onnx_import.layers import UnsupportedError
from trt_layermerge.network.onnx_import.onnx_graph import Node
from trt_layermerge.network.onnx_import.sizes import OnnxFunction

_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""ONNX's gates in the order of PyTorch's: input, forget, cell, output; reset, update, new."""

_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def recurrent(node: Node) -> OnnxFunction:
    """A rule for all three: one layer, in one direction or in both."""
    direction, gates = str(node.get("direction", "forward")).lower(), _GATES[node.op]
    both, backwards = direction == "bidirectional", direction == "reverse"
    _require_usual(node, 1 + both)

    def run(
        x: Tensor, w: Tensor, r: Tensor, b: Any = None, lengths: Any = None, h: Any = None, c: Any = None, p: Any = None
    ) -> list[Tensor] | Tensor:
        if lengths is not None or p is not None or not isinstance(x, Tensor):
            raise UnsupportedError("only sequences of one length, without peepholes, can be")
        x = x.transpose(0, 1) if node.get("layout", 0) else x
        x = x.flip(0) if backwards else x
        parts = (w, r) if b is None else (w, r, b)
        weights = [part for one in range(1 + both) for part in _weights(*(part[one] for part in parts), gates=gates)]
        begin = (h, c)[: 1 + (node.op == "LSTM")]
        if node.get("layout", 0):
            begin = tuple(None if state is None else state.transpose(0, 1) for state in begin)
        states = tuple(_state(state, x, w.shape[0], r.shape[-1]) for state in begin)
        given: Any = states if node.op == "LSTM" else states[0]
        out, *last = _FUNCTIONS[node.op](x, given, weights, b is not None, 1, 0.0, False, both, False)
        out = out.reshape(*out.shape[:2], w.shape[0], r.shape[-1]).transpose(1, 2)
        results = [out.flip(0) if backwards else out, *last]
        if node.get("layout", 0):
            results = [results[0].permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in last)]
        return results if len(node.outputs) > 1 else results[0]

    return run


_FUNCTIONS: dict[str, Callable[..., tuple[Tensor, ...]]] = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}


def _require_usual(node: Node, directions: int) -> None:
    usual = _ACTIVATIONS[node.op] * directions
    if list(node.get("activations") or usual) != usual or node.get("clip") is not None or node.get("input_forget", 0):
        raise UnsupportedError(f"its activations are not {' and '.join(dict.fromkeys(usual))} as they are")
    if node.op == "GRU" and not node.get("linear_before_reset", 0):
        raise UnsupportedError("PyTorch resets behind the product with the state (linear_before_reset = 1)")


def _weights(w: Tensor, r: Tensor, b: Tensor | None = None, *, gates: Sequence[int]) -> list[Tensor]:
    """Those of one direction, as PyTorch has them."""
    biases = () if b is None else b.chunk(2)
    return [torch.cat([part.chunk(len(gates))[gate] for gate in gates]) for part in (w, r, *biases)]


def _state(state: Any, x: Tensor, directions: int, hidden: int) -> Tensor:
    """Where it begins, ``[directions, batch, hidden]``."""
    if not isinstance(state, Tensor):
        return x.new_zeros(directions, x.shape[1], hidden)
    return state.expand(-1, x.shape[1], -1)  # files keep that of one sample
