"""A double of TensorRT: the calls of the genuine bindings, engines that run in ONNX Runtime on host memory.

Names and signatures are checked against the bindings (``tests/contract/test_doubles.py``). It says of itself that it is
simulated, and nothing that it times is a measurement.
"""

from double_settings import setting

from tensorrt._builder import Builder, IBuilderConfig, IOptimizationProfile
from tensorrt._core import Dims, IHostMemory, ILogger, Logger
from tensorrt._engine import EngineInspector, ICudaEngine, IExecutionContext, IProfiler, Runtime, nptype
from tensorrt._enums import (
    BuilderFlag,
    DataType,
    LayerInformationFormat,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    ProfilingVerbosity,
    TensorFormat,
    TensorIOMode,
)
from tensorrt._network import INetworkDefinition, ITensor, OnnxParser, ParserError
from tensorrt._timing import ITimingCache

SIMULATED = True
__version__ = setting("version")

__all__ = [
    "Builder", "BuilderFlag", "DataType", "Dims", "EngineInspector", "IBuilderConfig", "ICudaEngine",
    "IExecutionContext", "IHostMemory", "ILogger", "INetworkDefinition", "IOptimizationProfile", "IProfiler", "ITensor",
    "ITimingCache", "LayerInformationFormat", "Logger", "MemoryPoolType", "NetworkDefinitionCreationFlag",
    "OnnxParser", "ParserError", "ProfilingVerbosity", "Runtime", "TensorFormat", "TensorIOMode", "nptype",
]  # fmt: skip
