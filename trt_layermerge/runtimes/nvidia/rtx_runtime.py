"""TensorRT-RTX: NVIDIA's compiler, ahead of time, for a device that need not be here, and its runtime on one that is.

It compiles real engines for SM75 (RTX 2080 Ti) and newer on any machine, which shows that what we emit is accepted.
Where the card is that an engine was compiled for, ``rtx_card`` runs and times it; elsewhere an engine says so when it
is asked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import onnx

from trt_layermerge import files
from trt_layermerge.errors import IncompatibleError, RuntimeNotAvailableError
from trt_layermerge.onnxfile import inputs_of, read_onnx
from trt_layermerge.runtimes.base import (
    PRECISIONS,
    Array,
    BuildOptions,
    Condition,
    Device,
    Engine,
    Model,
    Nanoseconds,
    Runtime,
    RuntimeKind,
    Shape,
    require_computed,
)
from trt_layermerge.runtimes.models import output_shapes, shape_ranges, shapes_of, with_shapes
from trt_layermerge.runtimes.nvidia.building import BuildRequest, build
from trt_layermerge.runtimes.nvidia.compiler_settings import CompilerSettings
from trt_layermerge.runtimes.nvidia.library import load_library
from trt_layermerge.runtimes.nvidia.products import as_convolutions
from trt_layermerge.runtimes.nvidia.rtx_plan import convolution_precisions, kernels, moving_kernels, read_header

if TYPE_CHECKING:  # it loads the library
    from trt_layermerge.runtimes.nvidia.rtx_card import RtxCard
    from trt_layermerge.runtimes.nvidia.trt_engine import TensorRTEngine

_NO_FLOAT_PRODUCTS = ("sm75",)
"""Targets for which float32 matrix products are refused, and become convolutions."""

_NO_INT8 = ("sm75",)
"""Targets for which the compiler takes INT8 networks, dequantises their weights at run time and convolves floats."""


class TensorRtRtx(Runtime):
    """Compiles engines with TensorRT-RTX for one compute capability."""

    def __init__(self, kind: RuntimeKind, target: str) -> None:
        """Choose what to compile for.

        Args:
            kind: Whose runtime it is.
            target: One of the kind's.

        Raises:
            RuntimeNotAvailableError: TensorRT-RTX is missing or too old.
        """
        self.kind, self.target = kind, target
        self._target = target
        self._version: str = load_library("tensorrt_rtx").__version__

    @cached_property
    def _card(self) -> RtxCard | None:
        """The card, where it is the one that is compiled for, and all that running takes is here."""
        if not self.runs:
            return None
        from trt_layermerge.runtimes.nvidia.rtx_card import RtxCard

        return RtxCard()

    def condition(self) -> Condition | None:
        """How the card is now; ``None`` where it is elsewhere, and without NVML."""
        return None if self._card is None else self._card.condition()

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that convolutions can be computed in on the target."""
        return tuple(one for one in PRECISIONS if one != "int8" or self._target not in _NO_INT8)

    def host_times(self, engine: Engine, repeats: int) -> Nanoseconds | None:
        """By the host's clock, copies to and from the card included."""
        return engine.time_host(repeats) if isinstance(engine, RtxEngine) else None

    def launches(self, engine: Engine) -> int | None:
        """The kernels of its plan."""
        return len(kernels(engine.plan)) if isinstance(engine, RtxEngine) else None

    def describe(self, options: BuildOptions) -> Device:
        """The device that is compiled for; the card itself where it is here."""
        settings = f"TF32 {'on' if CompilerSettings.of(options.settings).tf32 else 'off'}"
        if self._card is not None:
            return self._card.describe(self.name, options, settings)
        return Device(
            name=f"{self._target.upper()} (ahead of time)",
            runtime=self.name,
            runtime_version=self._version,
            driver=None,
            precision=options.precision,
            threads=options.threads,
            timing="not timed",
            clocks="not told",
            settings=settings,
            compute_capability=f"{self._target[2:-1]}.{self._target[-1]}",
        )

    def build(self, model: Model, options: BuildOptions, shapes: Mapping[str, Shape] | None = None) -> RtxEngine:
        """Compile an engine, in a process of its own; see ``Runtime.build``."""
        self.require_precision(options.precision)
        proto, settings = read_onnx(model), CompilerSettings.of(options.settings)
        fixed = with_shapes(proto, shapes or {})
        inputs = shapes_of(inputs_of(fixed.graph).values())
        standard = all(onnx.defs.has(node.op_type, node.domain) for node in fixed.graph.node)
        outputs = output_shapes(fixed) if standard else None  # of other operators the compiler knows more
        compiled = proto if options.batches else fixed
        if self._target in _NO_FLOAT_PRODUCTS:
            compiled = as_convolutions(compiled)
        with tempfile.TemporaryDirectory() as folder:
            request = BuildRequest(
                library="tensorrt_rtx",
                model=Path(folder) / _file_name(model),
                plan=Path(folder) / "plan",
                shapes=shape_ranges(inputs, options.batches),
                workspace_bytes=settings.workspace_bytes,
                optimization_level=settings.optimization_level,
                tf32=settings.tf32,
                any_format=options.isolated,
                targets=(self._target,),
            )
            onnx.save(compiled, request.model)
            build(request, settings.build_seconds)
            plan = self._checked(request.plan, options)
        return self._engine(plan, options, inputs, outputs or output_shapes(fixed))

    def load(self, path: Path, options: BuildOptions) -> RtxEngine:
        """Read an engine that ``RtxEngine.save`` wrote.

        Raises:
            ModelError: The file is no engine of TensorRT-RTX, or is damaged.
            IncompatibleError: It was compiled for another target, or by another version.
        """
        return self._engine(self._checked(path, options), options)

    def _engine(
        self,
        plan: bytes,
        options: BuildOptions,
        inputs: Mapping[str, Shape] | None = None,
        outputs: Mapping[str, Shape] | None = None,
    ) -> RtxEngine:
        device = self.describe(options)
        if self._card is None:
            return RtxEngine(plan, device, inputs, outputs)
        running = self._card.engine(plan, device, options)
        return RtxEngine(plan, device, running.inputs, running.outputs, running)

    def _checked(self, path: Path, options: BuildOptions) -> bytes:
        """A plan that was compiled for our target by our version, and computes in the precision that is asked for."""
        header = read_header(path)
        if (header.targets, header.version) != ((self._target,), self._version):
            raise IncompatibleError(
                f"{path} was compiled for {' and '.join(header.targets)} by TensorRT-RTX {header.version}, "
                f"not for {self._target} by {self._version}",
                hint="build it again from its ONNX file",
            )
        plan = path.read_bytes()
        require_computed(convolution_precisions(plan), options.precision, "TensorRT-RTX")
        return plan


class RtxEngine:
    """A compiled engine; running it takes the device it was compiled for. ``TensorRtRtx`` makes it.

    Attributes:
        plan: The serialised engine.
    """

    def __init__(
        self,
        plan: bytes,
        device: Device,
        inputs: Mapping[str, Shape] | None = None,
        outputs: Mapping[str, Shape] | None = None,
        running: TensorRTEngine | None = None,
    ) -> None:
        """Keep a plan.

        Args:
            plan: The serialised engine.
            device: What it was compiled for.
            inputs: As the ONNX file has them; ``None`` where the engine was read from a file: only a device tells.
            outputs: The same.
            running: The engine on the card; ``None`` where that is elsewhere.
        """
        self.plan, self._device, self._inputs, self._outputs = plan, device, inputs, outputs
        self._running = running

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """Names and shapes of the inputs."""
        return self._refuse("say what it takes") if self._inputs is None else self._inputs

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """Names and shapes of the outputs."""
        return self._refuse("say what it gives") if self._outputs is None else self._outputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs; see ``Engine.run``.

        Raises:
            RuntimeNotAvailableError: The card is elsewhere.
        """
        return self._refuse("run") if self._running is None else self._running.run(inputs)

    def time(self, repeats: int) -> Nanoseconds:
        """Time single runs; see ``Engine.time``.

        Raises:
            RuntimeNotAvailableError: The card is elsewhere.
        """
        return self._refuse("be timed") if self._running is None else self._running.time(repeats)

    def time_host(self, repeats: int) -> Nanoseconds:
        """Time single requests; see ``TensorRTEngine.time_host``.

        Raises:
            RuntimeNotAvailableError: The card is elsewhere.
        """
        return self._refuse("be timed") if self._running is None else self._running.time_host(repeats)

    def save(self, path: Path) -> None:
        """Write the plan."""
        files.write_bytes(path, self.plan)

    def describe(self) -> Device:
        """The device the engine was compiled for."""
        return self._device

    def layout_conversions(self) -> tuple[str, ...]:
        """The kernels that only move a tensor, read off the plan."""
        return moving_kernels(self.plan)

    def _refuse(self, what: str) -> NoReturn:
        raise RuntimeNotAvailableError(
            f"an engine for {self._device.name} cannot {what}: it was compiled ahead of time, and there is no GPU here "
            "to run it on",
            hint="run it where the GPU is; --runtime onnxruntime runs here",
        )


def _file_name(model: Model) -> str:
    """What messages of the compiler call the model."""
    return model.name if isinstance(model, Path) else "model.onnx"
