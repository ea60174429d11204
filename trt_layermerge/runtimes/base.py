"""What every kind of runtime must answer, and what every runtime can do: build an engine, run it, time it, save it.

A *kind* is known before its library is loaded: what it can do and what it lacks here are asked of the kind, never of
its name. Packages above this one speak to these classes only and never import a library that runs engines. Precision
lives in the ONNX graph; ``BuildOptions.precision`` names it, for tables and manifests, and changes nothing in the
engine.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trt_layermerge.errors import ModelError, RuntimeNotAvailableError
from trt_layermerge.runtimes.builder_settings import BuilderSettings

if TYPE_CHECKING:  # a third of a second that not every command has to spend
    import onnx

PRECISIONS = ("fp32", "fp16", "int8")
"""From the widest to the narrowest."""

UNKNOWN_PRECISION = "a precision that is not known here"
"""Of a convolution whose engine tells it in other words than those that are known; it is none of ``PRECISIONS``."""

Shape = tuple[int, ...]
Array = NDArray[Any]
Feed = Mapping[str, Array]
"""Inputs of one run by name, ``[batch, ...]`` each."""

Nanoseconds = NDArray[np.int64]
Model: TypeAlias = "onnx.ModelProto | bytes | Path"


MOST_THREADS = 1024
"""Of one run on a CPU; more are a slip of the pen, and libraries take no larger numbers."""


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        threads: CPU threads of one run.
        precision: What the ONNX graph is written in: ``fp32``, ``fp16`` or ``int8``.
        isolated: Build the model as it would run amid a network, without the changes of memory layout that a runtime
            puts where a network begins and ends. For timing candidate blocks; inputs and outputs are then in the
            runtime's own layout.
        batches: Smallest and largest batch of one engine; ``None`` for the batch of the shapes alone. Only kinds with
            ``batch_ranges`` build more than one.
        settings: What a kind's builder is told; a kind takes the fields that it has.
        anew: Let the builder choose as if it had never timed anything: how far builds differ is seen in no other way.
    """

    threads: int = 1
    precision: str = "fp32"
    isolated: bool = False
    batches: tuple[int, int] | None = None
    settings: BuilderSettings = BuilderSettings()
    anew: bool = False

    def __post_init__(self) -> None:
        """Refuse what no runtime can build."""
        if not 1 <= self.threads <= MOST_THREADS:
            raise ValueError(f"threads must be 1 to {MOST_THREADS}, not {self.threads}")
        if self.batches is not None and not 1 <= self.batches[0] <= self.batches[1]:
            raise ValueError(f"batches must be a range from 1 upwards, not {self.batches}")


@dataclass(frozen=True)
class Condition:
    """What a device says of itself while it works.

    Attributes:
        clock_mhz: Its clock rate; ``None`` where it does not tell, as with all of these.
        temperature_c: Its temperature.
        power_w: What it draws.
        held_back: Why it is slower than it is, in words; empty where it is not.
    """

    clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    held_back: tuple[str, ...] = ()


@dataclass(frozen=True)
class Device:
    """What a latency depends on besides the model: the key of a profile.

    Attributes:
        name: The CPU's or GPU's model name; no serial number, so that equal machines share a profile.
        runtime: Name in the registry, such as ``onnxruntime``.
        runtime_version: Version of the runtime's library.
        driver: Version of the device's driver; ``None`` on a CPU.
        precision: ``fp32``, ``fp16`` or ``int8``.
        threads: CPU threads of one run.
        timing: What is timed and with which clock, in words.
        clocks: Who decides on the device's clock rate, in words.
        settings: What else of the build decides latencies, in words, such as a workspace limit; empty for nothing.
        simulated: There is no such device: the runtime is a double, and what it times is no measurement.
        compute_capability: Of a GPU, such as ``7.5``; ``None`` where it is not known or there is none.
    """

    name: str
    runtime: str
    runtime_version: str
    driver: str | None
    precision: str
    threads: int
    timing: str
    clocks: str
    settings: str = ""
    simulated: bool = False
    compute_capability: str | None = None


class Timed(Protocol):
    """What can be timed."""

    def time(self, repeats: int) -> Nanoseconds:
        """Time single runs, one after the other, on inputs that are already in place.

        Returns:
            Nanoseconds of each run; nothing is allocated, copied or left unfinished within them.
        """


class Engine(Timed, Protocol):
    """A model made ready for one device and one shape of each input."""

    @property
    def inputs(self) -> Mapping[str, Shape]:
        """Names and shapes of the inputs, in order."""

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """Names and shapes of the outputs, in order."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs, by name.

        Raises:
            ModelError: The inputs are not the engine's.
        """

    def save(self, path: Path) -> None:
        """Write the engine, so that ``Runtime.load`` reads it back; after a kill the file is the old or the new one."""

    def describe(self) -> Device:
        """The device the engine was built for."""

    def layout_conversions(self) -> tuple[str, ...]:
        """What of all that a run executes only moves its tensors into another memory layout, by name.

        Built with ``BuildOptions.isolated``, an engine has none where it begins and ends: they would be timed as if the
        block met them within its network.
        """


class Runtime(ABC):
    """A library that turns ONNX into engines, opened for a device.

    Attributes:
        kind: What is known of it without the library.
        target: What it compiles for, where the kind has targets.
        tells_layers: Whether its engines tell what their layers are, and how long each takes.
    """

    kind: RuntimeKind
    tells_layers: ClassVar[bool] = False
    target: str | None = None

    @property
    def name(self) -> str:
        """As ``registry.get_runtime`` takes it, such as ``tensorrt-rtx:sm75``."""
        return self.kind.name if self.target is None else f"{self.kind.name}:{self.target}"

    @property
    def runs(self) -> bool:
        """Whether its engines run here and can be timed; else they are compiled for a device elsewhere."""
        return not self.kind.missing_to_run(self.target)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that convolutions can be computed in here."""
        return PRECISIONS

    def require_precision(self, precision: str) -> None:
        """See that convolutions can be computed in a precision, before anything is built.

        Raises:
            RuntimeNotAvailableError: They would be computed in another one.
        """
        if precision not in self.precisions:
            raise RuntimeNotAvailableError(
                f"runtime {self.name!r} has no {precision} convolutions: it would compute them in floats",
                hint=f"precisions that are real there: {', '.join(self.precisions)}; pass --precision "
                f"{self.precisions[-1]}",
            )

    def condition(self) -> Condition | None:
        """How the device is now; ``None`` where it does not tell."""
        return None

    def doubt(self, engine: Engine) -> str | None:
        """Why a latency of one of its engines is less sure than its samples say, in words; ``None`` where it is not."""
        return None

    def launches(self, engine: Engine) -> int | None:
        """How many kernels one run of one of its engines launches; ``None`` where it does not tell."""
        return None

    def host_times(self, engine: Engine, repeats: int) -> Nanoseconds | None:
        """Times of single requests by the host's clock, inputs and outputs copied to and fro.

        ``None`` where nothing is copied: ``Engine.time`` then is by the host's clock.
        """
        return None

    def layer_times(self, engine: Engine, repeats: int) -> Mapping[str, Sequence[float]]:
        """Times of each layer in single runs, in ms; nothing where it does not tell."""
        return {}

    def layer_information(self, engine: Engine) -> str:
        """What the library tells of the layers of one of its engines, as JSON."""
        return '{"Layers": []}'

    def variations(self, options: BuildOptions) -> Mapping[str, BuildOptions]:
        """Other ways to build the same network that may make it faster, by what they are called; none by default."""
        return {}

    @abstractmethod
    def describe(self, options: BuildOptions) -> Device:
        """The device here, as engines built with these options see it."""

    @abstractmethod
    def build(self, model: Model, options: BuildOptions, shapes: Mapping[str, Shape] | None = None) -> Engine:
        """Build an engine.

        Args:
            model: ONNX: in memory, serialised, or in a file.
            options: How to build it.
            shapes: The shape of each input whose shape the model leaves open.

        Raises:
            ModelError: The model cannot be read or built, a shape is still open, or the convolutions came out in
                another precision.
            RuntimeNotAvailableError: The device is not here, or does not have the precision.
        """

    @abstractmethod
    def load(self, path: Path, options: BuildOptions) -> Engine:
        """Read an engine that ``Engine.save`` wrote.

        Raises:
            ModelError: The file is no engine of this runtime.
            RuntimeNotAvailableError: The device is not here.
        """


@dataclass(frozen=True)
class TritonBackend:
    """A backend of the Triton Inference Server.

    Attributes:
        name: As in a model's configuration.
        file: What it calls the model's file.
    """

    name: str
    file: str


class RuntimeKind(ABC):
    """What is known of a runtime before its library is loaded: all that others may ask of it.

    Attributes:
        name: In the registry, such as ``onnxruntime``.
        purpose: What it is for, in words.
        times_amid_network: Whether ``BuildOptions.isolated`` is heeded. A kind without it times a block as a network of
            its own, and is never asked for more.
        batch_ranges: Whether one engine takes a range of batches.
        settings: What its builder is told besides the model.
        suffix: What its engines' files end in.
        targets: What it compiles for, the usual one first; empty where it builds for the device that is here.
        packages: Those that bring its library, each alone; known to pip by these names.
        channel_multiple: Numbers of channels that its kernels take in one go: others cost as much as the next multiple.
        triton: Which backend of the Triton Inference Server loads its engines; ``None`` where none does.
        deepstream: Whether DeepStream's ``nvinfer`` loads its engines.
    """

    name: ClassVar[str]
    purpose: ClassVar[str]
    times_amid_network: ClassVar[bool]
    batch_ranges: ClassVar[bool] = False
    settings: ClassVar[type[BuilderSettings]] = BuilderSettings
    suffix: ClassVar[str] = ".engine"
    targets: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()
    channel_multiple: ClassVar[int] = 8
    triton: ClassVar[TritonBackend | None] = None
    deepstream: ClassVar[bool] = False

    @abstractmethod
    def open(self, target: str | None) -> Runtime:
        """Load the library; here, not where the kind is defined.

        Args:
            target: One of ``targets``; ``None`` where there are none.

        Raises:
            RuntimeNotAvailableError: Something that it needs is missing, or too old.
        """

    @abstractmethod
    def found(self) -> str:
        """What of it is here, such as its version; what may crash is asked in a process of its own.

        Raises:
            RuntimeNotAvailableError: It is missing; the hint says how to install it.
        """

    def usual_target(self) -> str | None:
        """What it is opened for where nobody says; ``None`` where it has no targets."""
        return next(iter(self.targets), None)

    def has_target(self, target: str) -> bool:
        """Whether it can be opened for a target: one of ``targets``, or whatever else the kind takes."""
        return target in self.targets

    def missing(self) -> list[RuntimeNotAvailableError]:
        """All that it needs and is not here, in a blink: libraries are looked for, not loaded."""
        return []

    def missing_to_run(self, target: str | None) -> list[RuntimeNotAvailableError]:
        """All that running engines for a target (``None``: the usual one) needs and is not here; as ``missing``."""
        return self.missing()

    def timing_cache(self, device: Device, settings: BuilderSettings) -> Path | None:
        """The file of measured tactics, or of compiled kernels, that a build uses; ``None`` where it uses none."""
        return None

    def benchmark_command(self, model: Path, options: BuildOptions, shapes: Mapping[str, Shape]) -> str | None:
        """The command of the library's own tool that comes closest to what is timed here; ``None`` without one.

        Args:
            model: ONNX file.
            options: How it would be built here.
            shapes: Shape of each input that the model leaves open.
        """
        return None

    def python_lines(self, engine: str, inputs: Mapping[str, tuple[Shape, str]], device: Device) -> list[str] | None:
        """Python that loads an engine and runs it once, with its library alone; ``None`` where that takes this package.

        Args:
            engine: Name of its file, beside the script.
            inputs: Shape and NumPy's type of each, by name.
            device: What it was built for.
        """
        return None


def is_installed(module: str) -> bool:
    """Whether a module is here, without loading it."""
    with suppress(ModuleNotFoundError, ValueError):  # without its package; loaded, and not saying where from
        return find_spec(module) is not None
    return module in sys.modules


def require_computed(found: frozenset[str], precision: str, library: str) -> None:
    """See that an engine computes convolutions in the precision that was asked for.

    Args:
        found: Precisions of its convolutions, as read back from the engine; empty where it has none.
        precision: What was asked for.
        library: Who built it, in words.

    Raises:
        ModelError: None of them is computed in it.
    """
    if found and precision not in found:
        raise ModelError(
            f"{library} built a {precision} model without a single {precision} convolution: all are in "
            f"{', '.join(sorted(found))}",
            hint="look at the ONNX graph's types, and at the precisions that the device has",
        )
