"""What a model computes inside, tensor by tensor, and how far two models are apart on the same inputs.

ONNX Runtime computes here, on the CPU: not as a runtime that is measured, but as a calculator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort

from trt_layermerge.precision.float_tensors import copy_of, float_tensors
from trt_layermerge.runtimes.base import Array, Feed


@dataclass(frozen=True)
class Difference:
    """How far a tensor of one model is from that of another.

    Attributes:
        largest: Largest magnitude in the reference.
        error: Largest difference over ``largest``; infinite where a value is not finite.
    """

    largest: float
    error: float


def observe(model: onnx.ModelProto, names: Sequence[str], batches: Sequence[Feed]) -> Iterator[dict[str, Array]]:
    """Values of some float tensors of a model, for one batch after the other."""
    exposed, values = copy_of(model), float_tensors(model)
    del exposed.graph.output[:]
    exposed.graph.output.extend(values[name] for name in names)
    settings = ort.SessionOptions()
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        # Without VNNI, its own INT8 kernels saturate; unfused, they are the float arithmetic that is written down.
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    session = ort.InferenceSession(exposed.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    for batch in batches:
        yield dict(zip(names, session.run(list(names), dict(batch)), strict=True))


def largest_magnitudes(model: onnx.ModelProto, batches: Sequence[Feed]) -> dict[str, float]:
    """Largest magnitude of each float tensor; NaN where one is in it."""
    floats, inputs = float_tensors(model), {value.name for value in model.graph.input}
    names = [name for name in floats if name not in inputs]
    largest = {name: max(_magnitude(batch[name]) for batch in batches) for name in floats if name in inputs}
    for values in observe(model, names, batches):
        for name, value in values.items():
            largest[name] = float(np.maximum(largest.get(name, 0.0), _magnitude(value)))
    return largest


def tensor_differences(
    model: onnx.ModelProto, reference: onnx.ModelProto, names: Sequence[str], batches: Sequence[Feed]
) -> Mapping[str, Difference]:
    """How far tensors of a model are from those of the same names in its reference."""
    largest, apart = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    pairs = zip(observe(model, names, batches), observe(reference, names, batches), strict=True)
    with np.errstate(invalid="ignore"):  # inf - inf is what is looked for
        for actual, expected in pairs:
            for name in names:
                largest[name] = max(largest[name], _magnitude(expected[name]))
                apart[name] = float(np.maximum(apart[name], _magnitude(actual[name] - expected[name])))
    tiny = float(np.finfo(np.float32).tiny)
    return {name: Difference(largest[name], _finite(apart[name] / max(largest[name], tiny))) for name in names}


def _magnitude(values: Array) -> float:
    return float(np.abs(values).max(initial=0.0))


def _finite(error: float) -> float:
    return error if np.isfinite(error) else float("inf")
