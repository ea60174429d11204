"""INT8: Q/DQ pairs around every convolution, as TensorRT wants them, with scales from calibration data.

Symmetric, zero points 0, one scale for each output channel of the weights and one for each tensor; biases stay float32.
A pair stands on what a convolution reads, none between a convolution and what is fused with it. A residual addition
finds one of its summands behind a pair: the tensor that a convolution reads as well, or else, where both are outputs
of convolutions, the second one. All else stays in float32, the classifier too: docs/decisions/0019-precision.md.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from trt_layermerge.errors import ModelError
from trt_layermerge.precision.float_tensors import constants, copy_of, weighted_layers
from trt_layermerge.precision.observe import largest_magnitudes, tensor_differences
from trt_layermerge.precision.tolerance import Converted, LayerCheck, checked, require_close, require_finite_tensors
from trt_layermerge.precision.weights import int8_loss
from trt_layermerge.runtimes.base import Array, Feed

_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "QDQKeepRemovableActivations": True,
    "OpTypesToExcludeOutputQuantization": ["Conv", "Add"],
    "CalibStridedMinMax": 1,  # of every method: one batch after the other is reduced to its histograms
    "CalibPercentile": 99.999,
}


def to_int8(model: onnx.ModelProto, batches: Sequence[Feed]) -> Converted:
    """Convert a model to INT8 and check every layer of it.

    Args:
        model: In FP32.
        batches: Real inputs to calibrate on, all of one size.

    Raises:
        ModelError: It has no convolution, or computes inf or NaN in FP32 already.
        VerificationError: INT8 changes its output by more than the tolerance.
    """
    convolutions = {node.name for node in model.graph.node if node.op_type == "Conv"}
    known = tuple(layer for layer in weighted_layers(model) if layer.node in convolutions)
    if not known:
        raise ModelError("the network has no convolution to quantise", hint="deliver it with --precision fp16")
    largest, weights = largest_magnitudes(model, batches), constants(model)
    require_finite_tensors(largest, {layer.output: layer.name for layer in known})
    quantised, outputs = _quantised(model, batches), {value.name for value in model.graph.output}
    found = tensor_differences(quantised, model, sorted({layer.output for layer in known} | outputs), checked(batches))
    checks = tuple(
        LayerCheck.of(layer, largest[layer.output], int8_loss(weights[layer.weight]), found[layer.output].error)
        for layer in known
    )
    return require_close(Converted(quantised, "int8", max(found[name].error for name in outputs), checks))


def _quantised(model: onnx.ModelProto, batches: Sequence[Feed]) -> onnx.ModelProto:
    source, additions = copy_of(model), _additions(model)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    add_pre_process_metadata(source)  # norms are folded and shapes known: nothing is left for its preparation to do
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "int8.onnx"
        quantize_static(
            source,
            path,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Add"],
            nodes_to_quantize=[*convolutions, *additions],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options=_OPTIONS,
        )
        quantised = onnx.load(path)
    for node in quantised.graph.node:
        if node.name in additions:
            node.input[0] = additions[node.name]
    _drop_unread(quantised)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def _additions(model: onnx.ModelProto) -> dict[str, str]:
    """The additions of two outputs of convolutions, neither of which any convolution reads, and the first one."""
    read = {node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    written = {node.output[0] for node in model.graph.node if node.op_type == "Conv"} - read
    additions = [node for node in model.graph.node if node.op_type == "Add" and written.issuperset(node.input)]
    return {node.name: node.input[0] for node in additions}


def _drop_unread(model: onnx.ModelProto) -> None:
    """Remove Q/DQ pairs whose result nothing reads any more, with their scales."""
    graph = model.graph
    for operator in ("DequantizeLinear", "QuantizeLinear"):
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        for node in [node for node in graph.node if node.op_type == operator and node.output[0] not in read]:
            graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


class _Reader:
    """Batches of calibration data as ONNX Runtime's calibrator asks for them."""

    def __init__(self, batches: Sequence[Feed]) -> None:
        self._batches = batches
        self._rest: Iterator[Feed] = iter(batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Hand out these batches next."""
        self._rest = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, Array] | None:
        """One batch, or ``None`` after the last."""
        batch = next(self._rest, None)
        return None if batch is None else dict(batch)
