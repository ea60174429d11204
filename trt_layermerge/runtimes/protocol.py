"""What every runtime can do, whoever made it: build an engine from ONNX, run it, time it, save it, say what it is.

Rooms above this one speak to these protocols only and never import a runtime's library. Precision lives in the ONNX
graph; ``BuildOptions.precision`` names it, for tables and manifests, and changes nothing in the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a third of a second that not every command has to spend
    import onnx

PRECISIONS = ("fp32", "fp16", "int8")
"""From the widest to the narrowest."""

Shape = tuple[int, ...]
Array = NDArray[Any]
Feed = Mapping[str, Array]
"""Inputs of one run by name, ``[batch, ...]`` each."""

Nanoseconds = NDArray[np.int64]
Model: TypeAlias = "onnx.ModelProto | bytes | Path"


@dataclass(frozen=True)
class Tuning:
    """What TensorRT's builder and timing are told besides the model; other runtimes have nothing of this.

    Attributes:
        workspace_mib: Scratch memory that a tactic may take, in MiB; ``None`` for all that the GPU has.
        optimization_level: Of the builder, 0..5; ``None`` for the library's own.
        tf32: Whether float32 convolutions may round to TF32 on GPUs that have it; Turing has not.
        build_seconds: Time limit of one build.
        timing_cache: File of the builder's timing cache; ``None`` for one in the user's cache folder.
        cuda_graph: Time a captured CUDA graph, as a deployment that cares would run the engine.
        lock_clocks_mhz: Clock rate to hold while measuring; ``None`` to leave it to the driver.
    """

    workspace_mib: int | None = None
    optimization_level: int | None = None
    tf32: bool = False
    build_seconds: float = 600.0
    timing_cache: Path | None = None
    cuda_graph: bool = True
    lock_clocks_mhz: int | None = None


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        threads: CPU threads of one run.
        precision: What the ONNX graph is written in: ``fp32``, ``fp16`` or ``int8``.
        isolated: Build the model as it would run amid a network, without the changes of memory layout that a runtime
            puts where a network begins and ends. For timing candidate blocks; inputs and outputs are then in the
            runtime's own layout.
        batches: Smallest and largest batch of one engine; ``None`` for the batch of the shapes alone. Only runtimes
            with optimisation profiles build more than one.
        tuning: What only TensorRT knows.
    """

    threads: int = 1
    precision: str = "fp32"
    isolated: bool = False
    batches: tuple[int, int] | None = None
    tuning: Tuning = Tuning()

    def __post_init__(self) -> None:
        """Refuse what no runtime can build."""
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")
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


class Engine(Protocol):
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

    def time(self, repeats: int) -> Nanoseconds:
        """Time single runs, one after the other, on inputs that are already in place.

        Returns:
            Nanoseconds of each run; nothing is allocated, copied or left unfinished within them.
        """

    def save(self, path: Path) -> None:
        """Write the engine, so that ``Runtime.load`` reads it back; after a kill the file is the old or the new one."""

    def describe(self) -> Device:
        """The device the engine was built for."""


class Runtime(Protocol):
    """A library that turns ONNX into engines."""

    @property
    def name(self) -> str:
        """Name in the registry."""

    def describe(self, options: BuildOptions) -> Device:
        """The device here, as engines built with these options see it."""

    def condition(self) -> Condition | None:
        """How the device is now; ``None`` where it does not tell."""

    def build(self, model: Model, options: BuildOptions, shapes: Mapping[str, Shape] | None = None) -> Engine:
        """Build an engine.

        Args:
            model: ONNX: in memory, serialised, or in a file.
            options: How to build it.
            shapes: The shape of each input whose shape the model leaves open.

        Raises:
            ModelError: The model cannot be read or built, or a shape is still open.
            RuntimeNotAvailableError: The device is not here.
        """

    def load(self, path: Path, options: BuildOptions) -> Engine:
        """Read an engine that ``Engine.save`` wrote.

        Raises:
            ModelError: The file is no engine of this runtime.
            RuntimeNotAvailableError: The device is not here.
        """
