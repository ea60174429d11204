"""Plans of the double, and what its inspector tells of them in the words of the genuine one (NVIDIA/TensorRT #4020)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import onnx
from double_settings import setting

from tensorrt._enums import TensorFormat

if TYPE_CHECKING:
    from tensorrt._builder import IBuilderConfig
    from tensorrt._network import INetworkDefinition

MAGIC = b"DOUBLE PLAN\n"
_NAMES = {onnx.TensorProto.FLOAT: ("FP32", "Float"), onnx.TensorProto.FLOAT16: ("FP16", "Half")}
_INT8 = ("Int8", "Int8")


def write(network: INetworkDefinition, config: IBuilderConfig, pace: float) -> bytes:
    """Version, shapes and layers as a line of JSON, then the model."""
    model = network._model
    fixed = {tensor.name: [tuple(tensor.shape)] * 3 for tensor in network._inputs}
    chosen = {name: three for profile in config._profiles for name, three in profile._shapes.items()}
    detailed = config.profiling_verbosity.name == "DETAILED"
    typed = network._strongly_typed and not setting("drops_precision")
    head = {
        "version": setting("version"),
        "pace": pace,
        "shapes": {**fixed, **chosen},
        "layers": reformats(network) + layers(model, typed=typed) if detailed else [n.name for n in model.graph.node],
    }
    return MAGIC + json.dumps(head).encode() + b"\n" + model.SerializeToString(deterministic=True)


def read(plan: bytes) -> tuple[dict[str, Any], onnx.ModelProto] | None:
    """What ``write`` wrote."""
    if not plan.startswith(MAGIC):
        return None
    head, _, model = plan.removeprefix(MAGIC).partition(b"\n")
    return json.loads(head), onnx.load_from_string(model)


def reformats(network: INetworkDefinition) -> list[dict[str, Any]]:
    """A layer for each image that has to enter or to leave in the linear format."""
    linear = 1 << int(TensorFormat.LINEAR)
    ends = [("Input", tensor) for tensor in network._inputs] + [("Output", tensor) for tensor in network._outputs]
    held = [(end, tensor) for end, tensor in ends if len(tensor.shape) == 4 and tensor.allowed_formats == linear]
    return [
        {"Name": f"Reformatting CopyNode for {end} Tensor {number} to {tensor.name}", "LayerType": "Reformat"}
        for number, (end, tensor) in enumerate(held)
    ]


def layers(model: onnx.ModelProto, *, typed: bool) -> list[dict[str, Any]]:
    """A layer for each node but those of types; ``typed`` where the engine keeps to the types of the model."""
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    sizes = {tensor.name: len(tensor.raw_data) or 1 for tensor in graph.initializer}
    quantised = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}

    def names(tensor: str) -> tuple[str, str]:
        if not typed:
            return _NAMES[onnx.TensorProto.FLOAT]
        return _INT8 if tensor in quantised else _NAMES.get(types.get(tensor, 0), ("Unknown", "Unknown"))

    def described(tensors: list[str]) -> list[dict[str, str]]:
        return [
            {"Name": name, "Format/Datatype": f"Row major linear {names(name)[0]} format"} for name in tensors if name
        ]

    found = []
    for number, node in enumerate(graph.node):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Constant"):
            continue
        layer: dict[str, Any] = {
            "Name": node.name or f"{node.op_type}_{number}",
            "LayerType": "CaskConvolution" if node.op_type == "Conv" else node.op_type,
            "Inputs": described(list(node.input)[:1]),
            "Outputs": described(list(node.output)),
            "ParameterType": "Convolution" if node.op_type == "Conv" else node.op_type,
            "TacticValue": "0x0000000000000000",
            "StreamId": 0,
            "Metadata": "",
        }
        if node.op_type == "Conv":
            layer["Weights"] = {"Type": names(node.input[1])[1], "Count": sizes.get(node.input[1], 1)}
        found.append(layer)
    return found
