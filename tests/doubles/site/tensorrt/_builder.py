"""The builder of the double: a plan is the ONNX model, with what the builder was told of it."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from double_settings import setting

from tensorrt import _plan, _timing
from tensorrt._core import Dims, IHostMemory, ILogger, require_logger
from tensorrt._enums import MAJOR, BuilderFlag, MemoryPoolType, NetworkDefinitionCreationFlag, ProfilingVerbosity
from tensorrt._network import INetworkDefinition
from tensorrt._timing import ITimingCache

_Shapes = tuple[Sequence[int], Sequence[int], Sequence[int]]


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, _Shapes] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        self._shapes[input] = (min, opt, max)

    def get_shape(self, input: str) -> list[Dims]:
        return [Dims(shape) for shape in self._shapes[input]]

    def __bool__(self) -> bool:
        return all(
            len(least) == len(usual) == len(most)
            and all(0 <= low <= best <= high for low, best, high in zip(least, usual, most, strict=True))
            for least, usual, most in self._shapes.values()
        )


class IBuilderConfig:
    def __init__(self) -> None:
        self.builder_optimization_level = 3
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self._flags = {BuilderFlag.TF32}
        self._limits = {pool: 2**63 - 1 for pool in MemoryPoolType}
        self._profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None
        self._route = ""

    if MAJOR >= 11:

        @property
        def build_route(self) -> str:
            return self._route

        @build_route.setter
        def build_route(self, route: str) -> None:
            if all(knob in setting("knobs") for knob in route.split()):
                self._route = route

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: BuilderFlag) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._limits[pool] = pool_size

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        return self._limits[pool]

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if not profile:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        return _timing.read(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._version != setting("version"):
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder:
    def __init__(self, logger: ILogger) -> None:
        if setting("no_builder"):
            logger.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = require_logger(logger)

    @property
    def logger(self) -> ILogger:
        return self._logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(bool(flags >> int(NetworkDefinitionCreationFlag.STRONGLY_TYPED) & 1))

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        fault = _faults(network)
        for number in range(fault("skipped_tactics") or 0):
            self._logger.log(
                ILogger.WARNING,
                f"Tactic Device request: {4096 + number}MB Available: 2048MB. "
                "Device memory is insufficient to use tactic.",
            )
        if fault("abort"):
            self._logger.log(ILogger.WARNING, "about to do something terrible")
            os.abort()
        if words := fault("builder_fails"):
            self._logger.log(ILogger.ERROR, words)
            return None
        if not config._profiles and any(-1 in tuple(tensor.shape) for tensor in network._inputs):
            self._logger.log(
                ILogger.ERROR, "Network has dynamic or shape inputs, but no optimization profile has been defined."
            )
            return None
        time.sleep(setting("build_seconds"))
        if config._cache is not None:
            timed = _timed(network, config._cache)
            if timed and config.get_flag(BuilderFlag.ERROR_ON_TIMING_CACHE_MISS):
                self._logger.log(
                    ILogger.ERROR,
                    "Adding new entry to timing cache is not allowed if "
                    "`BuilderFlag::kERROR_ON_TIMING_CACHE_MISS` is set.",
                )
                return None
            config._cache._entries |= timed
        return IHostMemory(_plan.write(network, config, _pace(config)))


def _faults(network: INetworkDefinition) -> Callable[[str], Any]:
    """Settings of faults; nothing where they are for other models."""
    size = setting("only_kernel")
    kernels = (a.ints for node in network._model.graph.node for a in node.attribute if a.name == "kernel_shape")
    meant = size is None or any(list(kernel) == [size, size] for kernel in kernels)
    return lambda name: setting(name) if meant else None


def _pace(config: IBuilderConfig) -> float:
    """How long a run takes, as a factor: what was timed before is chosen again, and knobs change what they change."""
    drawn = random.Random(os.getpid()).random() if config._cache is None else 0.0
    return float((1 + setting("build_noise") * drawn) * prod(setting("knobs")[knob] for knob in config._route.split()))


def _timed(network: INetworkDefinition, cache: ITimingCache) -> dict[str, int]:
    """Keys of tactics that the cache does not hold, each with a time."""
    nodes = (node.SerializeToString(deterministic=True) for node in network._model.graph.node)
    keys = (hashlib.sha256(node).hexdigest()[:16] for node in nodes)
    return {key: int(key[:3], 16) for key in keys if key not in cache._entries}
