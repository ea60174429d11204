"""A double of TensorRT-RTX: that of TensorRT, with targets, plans of its own form, and kernels compiled when first run.

Names and signatures are checked against the installed bindings (``tests/contract/test_doubles.py``). It says of itself
that it is simulated, and nothing that it times is a measurement.
"""

from double_settings import setting
from tensorrt import (
    BuilderFlag,
    DataType,
    Dims,
    EngineInspector,
    IHostMemory,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    IProfiler,
    ITensor,
    LayerInformationFormat,
    Logger,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OnnxParser,
    ParserError,
    ProfilingVerbosity,
    TensorFormat,
    TensorIOMode,
    nptype,
)

from tensorrt_rtx._compiler import Builder, ComputeCapability, IBuilderConfig
from tensorrt_rtx._just_in_time import (
    CudaGraphStrategy,
    DynamicShapesKernelSpecializationStrategy,
    ICudaEngine,
    IExecutionContext,
    IRuntimeCache,
    IRuntimeConfig,
    Runtime,
)

SIMULATED = True
__version__ = setting("rtx_version")

__all__ = [
    "Builder", "BuilderFlag", "ComputeCapability", "CudaGraphStrategy", "DataType", "Dims",
    "DynamicShapesKernelSpecializationStrategy", "EngineInspector", "IBuilderConfig", "ICudaEngine",
    "IExecutionContext", "IHostMemory", "ILogger", "INetworkDefinition", "IOptimizationProfile", "IProfiler",
    "IRuntimeCache", "IRuntimeConfig", "ITensor", "LayerInformationFormat", "Logger", "MemoryPoolType",
    "NetworkDefinitionCreationFlag", "OnnxParser", "ParserError", "ProfilingVerbosity", "Runtime", "TensorFormat",
    "TensorIOMode", "nptype",
]  # fmt: skip
