"""The runtime of the double: kernels are compiled when an engine first runs, unless the runtime cache has them."""

from __future__ import annotations

import hashlib
import json

import tensorrt
from cuda.bindings import runtime as cudart
from double_settings import setting
from tensorrt import IHostMemory, ILogger, _engine, _plan
from tensorrt._enums import _Native

from tensorrt_rtx._compiler import inner

_SLOWER = 100
"""Times that a run takes in which kernels are compiled."""


class CudaGraphStrategy(_Native):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class DynamicShapesKernelSpecializationStrategy(_Native):
    LAZY = 0
    EAGER = 1
    NONE = 2


class IRuntimeCache:
    def __init__(self) -> None:
        self._kernels: set[str] = set()

    def serialize(self) -> IHostMemory:
        return IHostMemory(json.dumps([setting("rtx_version"), *sorted(self._kernels)]).encode())

    def deserialize(self, blob: bytes) -> bool:
        try:
            version, *kernels = json.loads(bytes(blob))
        except ValueError:
            return False
        self._kernels |= set(kernels) if version == setting("rtx_version") else set()
        return bool(version == setting("rtx_version"))

    def reset(self) -> bool:
        self._kernels.clear()
        return True


class IRuntimeConfig:
    def __init__(self) -> None:
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY
        self._cache: IRuntimeCache | None = None

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def get_runtime_cache(self) -> IRuntimeCache | None:
        return self._cache

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True


class Runtime(_engine.Runtime):
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        plan = inner(bytes(serialized_engine))
        found = None if plan is None else _plan.read(plan)
        if setting("engine_refused") or found is None:
            self.logger.log(ILogger.ERROR, "IRuntime::deserializeCudaEngine: the magic tag does not match")
            return None
        return ICudaEngine(bytes(serialized_engine), *found)


class ICudaEngine(tensorrt.ICudaEngine):
    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: IRuntimeConfig) -> IExecutionContext:
        return IExecutionContext(self, runtime_config)


class IExecutionContext(_engine.IExecutionContext):
    def __init__(self, engine: ICudaEngine, config: IRuntimeConfig) -> None:
        super().__init__(engine)
        self._config = config

    def get_runtime_config(self) -> IRuntimeConfig:
        return self._config

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self._config.cuda_graph_strategy is CudaGraphStrategy.DISABLED, "nobody captures while we do"
        kernels = {hashlib.sha256(str(layer).encode()).hexdigest()[:16] for layer in self._engine._head["layers"]}
        cache = self._config._cache
        if cache is None or not kernels <= cache._kernels:
            there = cudart._stream(stream_handle)
            if there is None or there.captured is not None:
                return False  # nothing is compiled while a graph is captured
            cudart._clock_ms += _SLOWER
            if cache is not None:
                cache._kernels |= kernels
        return super().execute_async_v3(stream_handle)
