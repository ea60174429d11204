"""Enums of TensorRT as far as the double needs them, with the members that the release has."""

from __future__ import annotations

from enum import Enum
from functools import partial

from double_settings import setting

MAJOR = int(setting("version").split(".")[0])


class _Native(Enum):
    """As pybind11 makes enums: no numbers, but convertible to such."""

    def __int__(self) -> int:
        return int(self.value)


_make = partial(_Native, module="tensorrt")

_CREATION = {"STRONGLY_TYPED": 0} if MAJOR >= 11 else {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
NetworkDefinitionCreationFlag = _make("NetworkDefinitionCreationFlag", _CREATION)
_FLAGS = {"TF32": 6, "ERROR_ON_TIMING_CACHE_MISS": 15} if MAJOR >= 11 else {"TF32": 6, "FP16": 0, "INT8": 1}
BuilderFlag = _make("BuilderFlag", _FLAGS | ({} if MAJOR >= 11 else {"ERROR_ON_TIMING_CACHE_MISS": 16}))
DataType = _make(
    "DataType", {"FLOAT": 0, "HALF": 1, "INT8": 2, "INT32": 3, "BOOL": 4, "UINT8": 5, "FP8": 6, "BF16": 7, "INT64": 8}
)
TensorFormat = _make("TensorFormat", {"LINEAR": 0, "CHW2": 1, "HWC8": 2, "CHW4": 3, "CHW16": 4, "CHW32": 5, "HWC": 8})
MemoryPoolType = _make("MemoryPoolType", {"WORKSPACE": 0, "TACTIC_DRAM": 4, "TACTIC_SHARED_MEMORY": 5})
ProfilingVerbosity = _make("ProfilingVerbosity", {"LAYER_NAMES_ONLY": 0, "NONE": 1, "DETAILED": 2})
LayerInformationFormat = _make("LayerInformationFormat", {"ONELINE": 0, "JSON": 1})
TensorIOMode = _make("TensorIOMode", {"NONE": 0, "INPUT": 1, "OUTPUT": 2})


class Severity(_Native):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4
