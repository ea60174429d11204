"""One build, in a process of its own: ``python -m trt_layermerge.runtimes.nvidia.build_worker OUTCOME``.

The request is on its input. The only file that touches a builder or an ONNX parser of NVIDIA's. TensorRT 10.9 to 11
and TensorRT-RTX take the same path: the network is strongly typed, so precision is what the ONNX graph says, and no
flag of the builder changes it.
It imports neither torch nor onnx; ``building.build`` is how to call it.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trt_layermerge.errors import IncompatibleError, LayerMergeError, ModelError, RuntimeNotAvailableError
from trt_layermerge.files import write_bytes
from trt_layermerge.runtimes.nvidia import timing_cache
from trt_layermerge.runtimes.nvidia.building import BuildOutcome, BuildRequest
from trt_layermerge.runtimes.nvidia.library import load_library

if TYPE_CHECKING:  # ``build`` puts the library of the request in this place; both offer what is used here
    import tensorrt as trt
    import tensorrt_rtx as rtx

    from trt_layermerge.runtimes.base import Shape

_ROUTE = "build_route"
"""Attribute of a builder's configuration from 11.1 on, which no type of an older release may name."""

_MISSED = "kERROR_ON_TIMING_CACHE_MISS"
"""In what the builder says when it would have to time a tactic, and may not."""

_SKIPPED = re.compile(r"insuff?icient memory|memory is insufficient|sufficient workspace memory", re.IGNORECASE)


def main() -> None:
    """Build what standard input asks for; write the outcome, or the error, to the file that is named."""
    answer = Path(sys.argv[1])
    try:
        fields: dict[str, Any] = asdict(build_here(BuildRequest.from_json(sys.stdin.read())))
    except LayerMergeError as error:
        fields = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    write_bytes(answer, json.dumps(fields).encode())


def build_here(request: BuildRequest) -> BuildOutcome:
    """Build in this process; see ``building.build``."""
    module = load_library(request.library)
    globals()["trt"] = module
    messages = _Messages()
    begin = time.perf_counter()
    plan = _serialised(request, messages)
    seconds = time.perf_counter() - begin
    write_bytes(request.plan, plan)
    return BuildOutcome(
        version=module.__version__,
        seconds=seconds,
        size=len(plan),
        warnings=tuple(messages.warnings),
        skipped_tactics=tuple(messages.skipped),
        layers=_layers(plan, messages) if request.library == "tensorrt" else None,
        simulated=getattr(module, "SIMULATED", False),
    )


class _Messages:
    """What a library says while it builds; also shown on standard error, for whoever looks after a crash."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self.warnings: list[str] = []
        self.skipped: list[str] = []
        self.missed = False

    def logger(self) -> trt.ILogger:
        """A logger that writes here."""
        severity, heard = trt.ILogger.Severity, self.hear
        grave = (severity.INTERNAL_ERROR, severity.ERROR, severity.WARNING)

        class Logger(trt.ILogger):  # type: ignore[misc, unused-ignore]
            """Hands every message on."""

            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
                """Called by the library, from any of its threads."""
                heard(msg, grave=severity in grave)

        return Logger()

    def hear(self, message: str, *, grave: bool) -> None:
        """Keep a message that says what went wrong."""
        skipped = bool(_SKIPPED.search(message))
        self.missed = self.missed or _MISSED in message
        if skipped:
            self.skipped.append(message)
        if grave:
            self.warnings.append(message)
        if grave or skipped:
            print(message, file=sys.stderr, flush=True)

    def add(self, warning: str | None) -> None:
        """Keep a warning of our own, if there is one."""
        if warning is not None:
            self.hear(warning, grave=True)

    def last(self) -> str:
        """The gravest end of it, to be put behind a sentence."""
        return "; its last messages: " + " | ".join(self.warnings[-5:]) if self.warnings else ""


def _serialised(request: BuildRequest, messages: _Messages) -> bytes:
    """Parse and build.

    Raises:
        ModelError: The library refuses the model; with the node it refuses, or its last messages.
        IncompatibleError: A tactic is not in the cache that decides alone.
    """
    logger = messages.logger()
    try:
        builder = trt.Builder(logger)
    except (RuntimeError, TypeError) as error:  # pybind's word for a factory that returned nothing
        raise RuntimeNotAvailableError(
            f"the builder of {request.library} does not start: {error}{messages.last()}",
            hint="trt-layermerge doctor says what is missing",
        ) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(request.model)):
        raise ModelError(f"{request.library} cannot read {request.model}: {_parser_errors(parser, messages)}")
    config = builder.create_builder_config()
    _configure(config, request)
    _fix_shapes(builder, config, network, request)
    if request.any_format:
        _free_formats(network)
    _read_cache(config, request, messages)
    plan = builder.build_serialized_network(network, config)
    if messages.missed:  # whether or not it went on
        raise IncompatibleError(
            f"the timing cache {request.timing_cache} lacks a tactic that {request.model.name} needs, and nothing is "
            "timed beside it",
            hint=timing_cache.FILL,
        )
    if plan is None:
        raise ModelError(f"{request.library} cannot build {request.model}{messages.last()}")
    if request.timing_cache is not None and request.replayed is None:
        messages.add(timing_cache.save(request.timing_cache, config))
    return bytes(plan)


def _read_cache(config: trt.IBuilderConfig, request: BuildRequest, messages: _Messages) -> None:
    if request.timing_cache is None:
        return
    if request.replayed is None:
        messages.add(timing_cache.read_into(request.timing_cache, config))
        return
    timing_cache.replay(request.timing_cache, request.replayed, config)
    config.set_flag(trt.BuilderFlag.ERROR_ON_TIMING_CACHE_MISS)


def _parser_errors(parser: trt.OnnxParser, messages: _Messages) -> str:
    """All errors of a parser, each with its node."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if not errors:
        return f"the parser does not say why{messages.last()}"
    return "; ".join(map(_parser_error, errors))


def _parser_error(error: trt.ParserError) -> str:
    if not error.node_operator():
        return str(error.desc())
    return f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}"


def _configure(config: trt.IBuilderConfig, request: BuildRequest) -> None:
    if request.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    if request.optimization_level is not None:
        config.builder_optimization_level = request.optimization_level
    if request.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)  # the library's default is to set it
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if request.route:
        _take_route(config, request)
    if request.targets:
        _aim(cast("rtx.IBuilderConfig", config), request.targets)


def _take_route(config: trt.IBuilderConfig, request: BuildRequest) -> None:
    """Set knobs of the compiler.

    Raises:
        IncompatibleError: It has none, or not these.
    """
    try:
        setattr(config, _ROUTE, request.route)
        taken = hasattr(type(config), _ROUTE) and getattr(config, _ROUTE).split() == request.route.split()
    except (AttributeError, RuntimeError, TypeError, ValueError):
        taken = False
    if not taken:
        raise IncompatibleError(
            f"{request.library} {trt.__version__} does not take the build route {request.route!r}",
            hint="TensorRT has build routes from 11.1 on, on Linux; trtexec --helpBuildRoute lists its knobs",
        )


def _aim(config: rtx.IBuilderConfig, targets: tuple[str, ...]) -> None:
    """Compile for these compute capabilities; the default is another."""
    import tensorrt_rtx as rtx

    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(rtx.ComputeCapability.__members__[target.upper()], index)


def _fix_shapes(
    builder: trt.Builder, config: trt.IBuilderConfig, network: trt.INetworkDefinition, request: BuildRequest
) -> None:
    """One optimisation profile for all inputs with open dimensions.

    Raises:
        ModelError: An input has no shape, or one that does not fit it.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    if unknown := sorted(request.shapes.keys() - {tensor.name for tensor in inputs}):
        raise ModelError(f"the model has no input {unknown[0]!r}, only {', '.join(t.name for t in inputs)}")
    profile = builder.create_optimization_profile()
    for tensor in inputs:
        known = tuple(tensor.shape)
        three = request.shapes.get(tensor.name, (known, known, known))
        _require_fit(tensor.name, known, three)
        profile.set_shape(tensor.name, *three)
    if any(-1 in tuple(tensor.shape) for tensor in inputs) and config.add_optimization_profile(profile) < 0:
        raise ModelError(f"{request.library} refuses the range of shapes {dict(request.shapes)}")


def _require_fit(name: str, known: Shape, three: tuple[Shape, Shape, Shape]) -> None:
    for shape in three:
        if len(shape) != len(known) or any(have not in (-1, want) for have, want in zip(known, shape, strict=True)):
            raise ModelError(f"input {name!r} of shape {known} cannot take {shape} (-1 stands for an open dimension)")
        if -1 in shape:
            raise ModelError(f"input {name!r} has an open shape {shape}", hint="give the shape, batch included")


def _free_formats(network: trt.INetworkDefinition) -> None:
    """Let images enter and leave in any format that a GPU has for their type."""
    formats = _formats()
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    for tensor in tensors:
        if len(tuple(tensor.shape)) == 4 and tensor.dtype in formats:
            mask = 0
            for one in formats[tensor.dtype]:
                mask |= 1 << int(one)
            tensor.allowed_formats = mask


def _formats() -> Mapping[trt.DataType, tuple[trt.TensorFormat, ...]]:
    """Formats of four-dimensional tensors; TensorRT's documentation, "Data Format Descriptions"."""
    known = trt.TensorFormat
    return {
        trt.DataType.FLOAT: (known.LINEAR, known.CHW32, known.HWC),
        trt.DataType.HALF: (known.LINEAR, known.CHW2, known.HWC8, known.CHW4, known.CHW32),
        trt.DataType.INT8: (known.LINEAR, known.CHW4, known.CHW32),
    }


def _layers(plan: bytes, messages: _Messages) -> str | None:
    """What the engine inspector says of the engine; ``None`` where no device can load it.

    Without a driver the library does not refuse to load an engine, it crashes.
    """
    from trt_layermerge.runtimes.nvidia.cuda import require_driver

    try:
        require_driver()
    except RuntimeNotAvailableError:
        return None
    logger = messages.logger()
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


if __name__ == "__main__":
    main()
