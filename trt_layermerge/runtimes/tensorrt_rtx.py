"""TensorRT-RTX: NVIDIA's compiler, ahead of time, for a device that need not be here.

It compiles real engines for SM75 (RTX 2080 Ti) and newer on any machine, which shows that what we emit is accepted. It
runs and times none: an engine made here says so when it is asked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import onnx

from trt_layermerge import files
from trt_layermerge.errors import IncompatibleError, ModelError, RuntimeNotAvailableError, UsageError
from trt_layermerge.onnxfile import inputs_of, read_onnx
from trt_layermerge.runtimes.building import BuildRequest, build
from trt_layermerge.runtimes.library import load_library
from trt_layermerge.runtimes.models import shape_ranges, shapes_of, with_shapes
from trt_layermerge.runtimes.products import as_convolutions
from trt_layermerge.runtimes.protocol import Array, BuildOptions, Device, Model, Nanoseconds, Shape
from trt_layermerge.runtimes.rtx_plan import TARGETS, read_header

DEFAULT_TARGET = "sm75"
_NO_FLOAT_PRODUCTS = ("sm75",)
"""Targets for which float32 matrix products are refused, and become convolutions."""


class TensorRtRtx:
    """Compiles engines with TensorRT-RTX for one compute capability."""

    def __init__(self, target: str = DEFAULT_TARGET) -> None:
        """Choose what to compile for.

        Args:
            target: One of ``sm75``, ``sm80``, ``sm86``, ``sm89`` and ``sm120``.

        Raises:
            UsageError: There is no such target.
            RuntimeNotAvailableError: TensorRT-RTX is missing or too old.
        """
        if target not in TARGETS:
            hint = f"targets it has: {', '.join(TARGETS)}"
            raise UsageError(f"TensorRT-RTX does not compile for {target!r}", hint=hint)
        self._target = target
        self._version: str = load_library("tensorrt_rtx").__version__

    @property
    def name(self) -> str:
        """Such as ``tensorrt-rtx:sm75``."""
        return f"tensorrt-rtx:{self._target}"

    def condition(self) -> None:
        """Nothing: the device is not here."""

    def describe(self, options: BuildOptions) -> Device:
        """The device that is compiled for."""
        return Device(
            name=f"{self._target.upper()} (ahead of time)",
            runtime=self.name,
            runtime_version=self._version,
            driver=None,
            precision=options.precision,
            threads=options.threads,
            timing="not timed",
            clocks="not told",
            settings=f"TF32 {'on' if options.tuning.tf32 else 'off'}",
            compute_capability=f"{self._target[2:-1]}.{self._target[-1]}",
        )

    def build(self, model: Model, options: BuildOptions, shapes: Mapping[str, Shape] | None = None) -> RtxEngine:
        """Compile an engine, in a process of its own; see ``Runtime.build``."""
        proto, tuning = read_onnx(model), options.tuning
        fixed = with_shapes(proto, shapes or {})
        inputs, outputs = shapes_of(inputs_of(fixed.graph).values()), _output_shapes(fixed)
        compiled = proto if options.batches else fixed
        if self._target in _NO_FLOAT_PRODUCTS:
            compiled = as_convolutions(compiled)
        with tempfile.TemporaryDirectory() as folder:
            request = BuildRequest(
                library="tensorrt_rtx",
                model=Path(folder) / _file_name(model),
                plan=Path(folder) / "plan",
                shapes=shape_ranges(inputs, options.batches),
                workspace_bytes=None if tuning.workspace_mib is None else tuning.workspace_mib * 2**20,
                optimization_level=tuning.optimization_level,
                tf32=tuning.tf32,
                any_format=options.isolated,
                targets=(self._target,),
            )
            onnx.save(compiled, request.model)
            build(request, tuning.build_seconds)
            self._require_fit(request.plan)
            plan = request.plan.read_bytes()
        return RtxEngine(plan, self.describe(options), inputs, outputs)

    def load(self, path: Path, options: BuildOptions) -> RtxEngine:
        """Read an engine that ``RtxEngine.save`` wrote.

        Raises:
            ModelError: The file is no engine of TensorRT-RTX, or is damaged.
            IncompatibleError: It was compiled for another target, or by another version.
        """
        self._require_fit(path)
        return RtxEngine(path.read_bytes(), self.describe(options))

    def _require_fit(self, path: Path) -> None:
        """See that a plan was compiled for our target by our version."""
        header = read_header(path)
        if (header.targets, header.version) != ((self._target,), self._version):
            raise IncompatibleError(
                f"{path} was compiled for {' and '.join(header.targets)} by TensorRT-RTX {header.version}, "
                f"not for {self._target} by {self._version}",
                hint="build it anew from its ONNX file",
            )


class RtxEngine:
    """A compiled engine, to be saved; running it takes the device it was compiled for. ``TensorRtRtx`` makes it."""

    def __init__(
        self,
        plan: bytes,
        device: Device,
        inputs: Mapping[str, Shape] | None = None,
        outputs: Mapping[str, Shape] | None = None,
    ) -> None:
        """Keep a plan.

        Args:
            plan: The serialised engine.
            device: What it was compiled for.
            inputs: As the ONNX file has them; ``None`` where the engine was read from a file: only a device tells.
            outputs: The same.
        """
        self._plan, self._device, self._inputs, self._outputs = plan, device, inputs, outputs

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """Names and shapes of the inputs."""
        return self._refuse("say what it takes") if self._inputs is None else self._inputs

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """Names and shapes of the outputs."""
        return self._refuse("say what it gives") if self._outputs is None else self._outputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Refused: see the class."""
        self._refuse("run")

    def time(self, repeats: int) -> Nanoseconds:
        """Refused: see the class."""
        self._refuse("be timed")

    def save(self, path: Path) -> None:
        """Write the plan."""
        files.write_bytes(path, self._plan)

    def describe(self) -> Device:
        """The device the engine was compiled for."""
        return self._device

    def _refuse(self, what: str) -> NoReturn:
        raise RuntimeNotAvailableError(
            f"an engine for {self._device.name} cannot {what}: it was compiled ahead of time, and there is no GPU here "
            "to run it on",
            hint="use --runtime onnxruntime here, or --runtime tensorrt where the GPU is",
        )


def _output_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes of the outputs of a model whose inputs are fixed.

    Raises:
        ModelError: One is still open.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # what the file says of an open batch would stand in the way
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    shapes = shapes_of(onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.output)
    for name, shape in shapes.items():
        if not all(shape):
            raise ModelError(f"the shape {shape} of output {name!r} cannot be known before the model runs")
    return shapes


def _file_name(model: Model) -> str:
    """What messages of the compiler call the model."""
    return model.name if isinstance(model, Path) else "model.onnx"
