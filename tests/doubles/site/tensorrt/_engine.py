"""Engines of the double: ONNX Runtime on the memory that addresses point to, queued on the CUDA double's stream."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from cuda.bindings import runtime as cudart
from double_settings import setting

from tensorrt import _plan
from tensorrt._core import Dims, IHostMemory, ILogger, require_logger
from tensorrt._enums import DataType, LayerInformationFormat, TensorIOMode
from tensorrt._network import ITensor

_NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
}


def nptype(trt_type: DataType) -> type:
    if trt_type in _NUMPY:
        return _NUMPY[trt_type]
    raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = require_logger(logger)
        self.engine_host_code_allowed = False

    @property
    def logger(self) -> ILogger:
        return self._logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        found = _plan.read(bytes(serialized_engine))
        if setting("engine_refused") or found is None:
            self._logger.log(
                ILogger.ERROR, "Serialization assertion magicTagRead == kMAGIC_TAG failed. Magic tag does not match"
            )
            return None
        if found[0]["version"] != setting("version"):
            self._logger.log(
                ILogger.ERROR,
                "Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed. Version tag does not match",
            )
            return None
        return ICudaEngine(bytes(serialized_engine), *found)


class ICudaEngine:
    def __init__(self, plan: bytes, head: dict[str, Any], model: onnx.ModelProto) -> None:
        weights = {tensor.name for tensor in model.graph.initializer}
        self._plan, self._head, self._model = plan, head, model
        self._inputs = {value.name: ITensor(value) for value in model.graph.input if value.name not in weights}
        self._outputs = {value.name: ITensor(value) for value in model.graph.output}
        self._tensors = self._inputs | self._outputs

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_layers(self) -> int:
        return len(self._head["layers"])

    @property
    def num_optimization_profiles(self) -> int:
        return 1

    @property
    def device_memory_size_v2(self) -> int:
        return 0

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        if name not in self._tensors:
            return TensorIOMode.NONE
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._tensors[name].dtype

    def get_tensor_shape(self, name: str) -> Dims:
        return self._tensors[name].shape

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        return [Dims(shape) for shape in self._head["shapes"][name]]

    def create_execution_context(self) -> IExecutionContext:
        return IExecutionContext(self)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._plan)


class IProfiler:
    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise RuntimeError('Tried to call pure virtual function "IProfiler::reportLayerTime"')


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        import onnxruntime as ort  # a build does without

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        model = engine._model.SerializeToString()
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._profiler: IProfiler | None = None
        self._shapes = {name: tuple(tensor.shape) for name, tensor in engine._inputs.items()}
        self._computed: object = None
        self._known: dict[tuple[tuple[int, ...], ...], dict[str, tuple[int, ...]]] = {}

    @property
    def profiler(self) -> IProfiler | None:
        return self._profiler

    @profiler.setter
    def profiler(self, profiler: IProfiler) -> None:
        if not isinstance(profiler, IProfiler):
            raise TypeError("incompatible function arguments")
        self._profiler = profiler

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        least, _, most = self._engine._head["shapes"][name]
        wanted = tuple(shape)
        if len(wanted) != len(least):
            return False
        if not all(low <= size <= high for low, size, high in zip(least, wanted, most, strict=True)):
            return False
        self._shapes[name] = wanted
        return True

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(self._shapes[name] if name in self._shapes else self._output_shapes()[name])

    def infer_shapes(self) -> list[str]:
        return [name for name, shape in self._shapes.items() if -1 in shape]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._tensors:
            return False
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self.infer_shapes() or self._addresses.keys() != self._engine._tensors.keys():
            return False
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        outputs = self._output_shapes()

        def compute() -> None:
            # Nobody waits for what is there already, where the settings say how long it takes.
            state = (cudart._uploads, shapes, addresses)
            if setting("run_us") is not None and state == self._computed:
                return
            self._computed = state
            inputs = {name: self._at(addresses[name], name, shape) for name, shape in shapes.items()}
            for name, result in zip(outputs, self._session.run(list(outputs), inputs), strict=True):
                self._at(addresses[name], name, outputs[name])[...] = result

        done = cudart._run_engine(stream_handle, compute, self._engine._head["pace"])
        if done and self._profiler is not None:
            layers = self._engine._head["layers"]
            for number, layer in enumerate(layers):
                self._profiler.report_layer_time(layer["Name"], 1e-3 * (1 + number))
        return done

    def _at(self, address: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype = np.dtype(nptype(self._engine.get_tensor_dtype(name)))
        block = (ctypes.c_char * (prod(shape) * dtype.itemsize)).from_address(address)
        return np.frombuffer(block, dtype).reshape(shape)

    def _output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Found by running once; unknown while an input's shape is."""
        names = list(self._engine._outputs)
        if self.infer_shapes():
            return {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        key = tuple(self._shapes.values())
        if key not in self._known:
            types = {name: nptype(self._engine.get_tensor_dtype(name)) for name in self._shapes}
            zeros = {name: np.zeros(shape, types[name]) for name, shape in self._shapes.items()}
            self._known[key] = {n: r.shape for n, r in zip(names, self._session.run(names, zeros), strict=True)}
        return self._known[key]


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self.execution_context: IExecutionContext | None = None

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        assert format is LayerInformationFormat.JSON, "the double speaks JSON only"
        return json.dumps({"Layers": self._engine._head["layers"], "Bindings": list(self._engine._tensors)})

    def get_layer_information(self, layer_index: int, format: LayerInformationFormat) -> str:
        assert format is LayerInformationFormat.JSON, "the double speaks JSON only"
        return json.dumps(self._engine._head["layers"][layer_index])
