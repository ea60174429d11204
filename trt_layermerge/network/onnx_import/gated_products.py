"""Activations that ONNX has no operator for, or had none in older sets, found by the arithmetic that stands for them.

SiLU, Hardswish, Mish and GELU are products of a value and a gate that is computed from it. So written, they would be no
activations to us, and chains would end at them. Each becomes one node, of the operator that ONNX has for it by now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isclose, sqrt

from trt_layermerge.network.onnx_import.onnx_graph import Node, OnnxGraph


def fuse_activations(graph: OnnxGraph) -> OnnxGraph:
    """Write every such product as one node: ``Swish``, ``HardSwish``, ``Mish``, ``Gelu``, ``HardSigmoid``."""
    match = _Matcher(graph)
    return graph.with_nodes(tuple(match.fused(node) for node in graph.nodes))


class _Matcher:
    def __init__(self, graph: OnnxGraph) -> None:
        self.constants = graph.constants
        self.producers = graph.producers

    def fused(self, node: Node) -> Node:
        """The activation that a node ends, or the node itself."""
        if node.op not in ("Mul", "Div"):
            return node
        scale, core = self.scaled(node.outputs[0])
        if self.is_clip_of_shifted(core) and isclose(scale, 1 / 6, rel_tol=1e-6):
            gate = self.producers[self.producers[core].inputs[0]]
            return replace(node, op="HardSigmoid", inputs=self.shifted(gate, 3.0), attributes={"alpha": 1 / 6})
        product = self.producers.get(core)
        if product is None or product.op != "Mul":
            return node
        for x, gate_name in (product.inputs, product.inputs[::-1]):
            for factor, value in ((1.0, x), self.scaled(x)):
                gate_scale, inner = self.scaled(gate_name)
                op = self.activation(value, inner, scale * factor * gate_scale)
                if op is not None:
                    return replace(node, op=op, inputs=(value,), attributes={})
        return node

    def activation(self, x: str, gate_name: str, scale: float) -> str | None:
        """The operator of ``scale * x * gate``; ``None`` if there is none."""
        gate = self.producers.get(gate_name)
        if gate is None:
            return None
        unit = isclose(scale, 1.0, rel_tol=1e-6)
        of_x = gate.inputs[0] == x
        if gate.op == "Sigmoid" and of_x and unit:
            return "Swish"
        if gate.op == "HardSigmoid" and of_x and unit and _is_hard(gate):
            return "HardSwish"
        if self.is_clip_of_shifted(gate_name) and isclose(scale, 1 / 6, rel_tol=1e-6):
            return "HardSwish" if self.shifted(self.producers[gate.inputs[0]], 3.0) == (x,) else None
        inner = self.producers.get(gate.inputs[0])
        if gate.op == "Tanh" and inner is not None and inner.op == "Softplus" and inner.inputs[0] == x and unit:
            return "Mish"
        return "Gelu" if isclose(scale, 0.5, rel_tol=1e-6) and self.is_error_gate(gate, x) else None

    def is_error_gate(self, gate: Node, x: str) -> bool:
        """Whether a value is ``1 + erf(x / sqrt(2))``."""
        for name in self.shifted(gate, 1.0):
            erf = self.producers.get(name)
            if erf is not None and erf.op == "Erf":
                scale, value = self.scaled(erf.inputs[0], until=x)
                return value == x and isclose(scale, 1 / sqrt(2), rel_tol=1e-5)
        return False

    def is_clip_of_shifted(self, name: str) -> bool:
        """Whether a value is ``clip(y + 3, 0, 6)``."""
        clip = self.producers.get(name)
        if clip is None or clip.op != "Clip":
            return False
        low, high = (self.scalar(bound) for bound in (*clip.inputs[1:], "", "")[:2])
        low, high = clip.get("min", low), clip.get("max", high)  # attributes, in old sets
        shift = self.producers.get(clip.inputs[0])
        return (low, high) == (0.0, 6.0) and shift is not None and bool(self.shifted(shift, 3.0))

    def shifted(self, node: Node, by: float) -> tuple[str, ...]:
        """The operand of ``operand + by``, alone; empty if a node is no such addition."""
        if node.op != "Add":
            return ()
        return next(((x,) for x, constant in self.operands(node) if isclose(constant, by)), ())

    def scaled(self, name: str, until: str = "") -> tuple[float, str]:
        """A value as a constant times another: what multiplications and divisions by constants leave."""
        scale, node = 1.0, self.producers.get(name)
        while node is not None and node.op in ("Mul", "Div") and name != until:
            found = next(iter(self.operands(node)), None)
            if found is None or (node.op == "Div" and found[1] == 0):
                break
            name, constant = found
            scale *= constant if node.op == "Mul" else 1 / constant
            node = self.producers.get(name)
        return scale, name

    def operands(self, node: Node) -> Iterator[tuple[str, float]]:
        """Every operand of a binary node beside which a constant number stands, with the number."""
        first, second = node.inputs
        pairs = [(first, second)] if node.op == "Div" else [(first, second), (second, first)]
        for name, other in pairs:
            constant = self.scalar(other)
            if constant is not None and name not in self.constants:
                yield name, constant

    def scalar(self, name: str) -> float | None:
        """A constant of one number."""
        array = self.constants.get(name)
        return float(array.item()) if array is not None and array.size == 1 else None


def _is_hard(gate: Node) -> bool:
    return isclose(gate.get("alpha", 0.2), 1 / 6, rel_tol=1e-5) and gate.get("beta", 0.5) == 0.5
