"""Networks and the ONNX parser of the double; a network is the ONNX model that was parsed into it."""

from __future__ import annotations

import onnx
from double_settings import setting
from google.protobuf.message import DecodeError

from tensorrt._core import Dims, ILogger
from tensorrt._enums import DataType, TensorFormat

_TYPES = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.INT8: DataType.INT8,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.UINT8: DataType.UINT8,
    onnx.TensorProto.BOOL: DataType.BOOL,
}


class ITensor:
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        tensor = value.type.tensor_type
        self.name = value.name
        self.allowed_formats = 1 << int(TensorFormat.LINEAR)
        self._dtype = _TYPES[tensor.elem_type]
        self._shape = Dims([size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim])

    @property
    def shape(self) -> Dims:
        return self._shape

    @property
    def dtype(self) -> DataType:
        return self._dtype


class INetworkDefinition:
    def __init__(self, strongly_typed: bool) -> None:
        self.name = ""
        self._strongly_typed = strongly_typed
        self._model = onnx.ModelProto()
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []

    def _take(self, model: onnx.ModelProto) -> None:
        weights = {tensor.name for tensor in model.graph.initializer}
        self._model = model
        self._inputs = [ITensor(value) for value in model.graph.input if value.name not in weights]
        self._outputs = [ITensor(value) for value in model.graph.output]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        return len(self._model.graph.node)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


class ParserError:
    def __init__(self, desc: str, node: onnx.NodeProto | None = None) -> None:
        self._desc, self._node = desc, node

    def desc(self) -> str:
        return self._desc

    def node_name(self) -> str:
        return "" if self._node is None else self._node.name

    def node_operator(self) -> str:
        return "" if self._node is None else self._node.op_type


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def clear_errors(self) -> None:
        self._errors.clear()

    def parse_from_file(self, model: str) -> bool:
        try:
            proto = onnx.load(model)
        except (OSError, DecodeError) as error:
            self._errors.append(ParserError(f"Failed to parse ONNX model from file: {model}: {error}"))
            return False
        refused = setting("parser_refuses")
        for node in proto.graph.node:
            known = node.domain not in ("", "ai.onnx") or onnx.defs.has(node.op_type)
            if not known or node.op_type == refused:
                said = f"No importer registered for op: {node.op_type}. Plugin not found"
                self._errors.append(ParserError(said, node))
        if not self._errors:
            self._network._take(proto)
        for error in self._errors:
            self._logger.log(ILogger.ERROR, f"ModelImporter.cpp: {error.desc()}")
        return not self._errors
