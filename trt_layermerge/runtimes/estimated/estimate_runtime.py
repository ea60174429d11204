"""Estimates behind the protocol of runtimes: a model is read, not built, and its latency is a sum over its kernels.

What an engine computes is computed by ONNX Runtime on the CPU, so that what is delivered can be verified; that says
nothing of the card. It cannot tell precisions that the card would refuse, memory that it lacks, tactics that its
builder would choose, layouts that it would convert, clocks or temperatures. Samples are all equal, for the uncertainty
of an estimate is no noise of a clock: ``doubt`` tells it, and makes rows of a profile ``degraded``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from trt_layermerge import files
from trt_layermerge.estimation.card import Card
from trt_layermerge.estimation.device_files import read_card
from trt_layermerge.estimation.latency_model import Estimate, LatencyModel
from trt_layermerge.estimation.workload import Workload
from trt_layermerge.onnxfile import inputs_of, named_model, read_onnx
from trt_layermerge.runtimes.base import (
    Array,
    BuildOptions,
    Device,
    Engine,
    Model,
    Nanoseconds,
    Runtime,
    RuntimeKind,
    Shape,
)
from trt_layermerge.runtimes.estimate import EstimateSettings
from trt_layermerge.runtimes.estimated.gpu_kernels import gpu_kernels
from trt_layermerge.runtimes.models import output_shapes, shapes_of, with_shapes


class EstimateRuntime(Runtime):
    """Estimates for one card."""

    def __init__(self, kind: RuntimeKind, target: str) -> None:
        """Read the card.

        Args:
            kind: Whose runtime it is.
            target: Name of a card, or file of one.

        Raises:
            UsageError: There is none, or its file cannot be read.
        """
        self.kind, self.target, self._card = kind, target, read_card(target)

    def describe(self, options: BuildOptions) -> Device:
        """The card, with what decides its estimates."""
        card, library = self._card, EstimateSettings.of(options.settings).library
        return Device(
            name=card.sheet.title,
            runtime=self.name,
            runtime_version=library,
            driver=None,
            precision=options.precision,
            threads=options.threads,
            timing=f"estimated, {'amid its network' if options.isolated else 'one run of an engine'}",
            clocks=f"{card.sheet.clock_ghz} GHz assumed",
            settings=f"constants {_checksum(card)} of {card.constants_of}",
            simulated=True,
            compute_capability=card.sheet.compute_capability,
        )

    def build(self, model: Model, options: BuildOptions, shapes: Mapping[str, Shape] | None = None) -> EstimateEngine:
        """Read the model and estimate it; see ``Runtime.build``."""
        proto = with_shapes(read_onnx(model), shapes or {})
        estimates = self._estimates(proto, options, named_model(model))
        return EstimateEngine(proto, self.describe(options), estimates, options)

    def load(self, path: Path, options: BuildOptions) -> EstimateEngine:
        """Read what ``EstimateEngine.save`` wrote: the model."""
        return self.build(path, options)

    def doubt(self, engine: Engine) -> str | None:
        """What of an engine's latency no fit on this card has seen."""
        return engine.doubt if isinstance(engine, EstimateEngine) else None

    def _estimates(self, model: onnx.ModelProto, options: BuildOptions, where: str) -> list[Estimate]:
        """One a kernel, and one of what a run of an engine costs, unless the model stands amid a network."""
        library = EstimateSettings.of(options.settings).library
        estimates, work = LatencyModel(self._card, library, "amid-network"), gpu_kernels(model, where)
        found = estimates.convolutions([one for one in work if isinstance(one, Workload)])
        found += [estimates.operation(one) for one in work if not isinstance(one, Workload)]
        return found if options.isolated else [*found, LatencyModel(self._card, library).engine_run()]


class EstimateEngine:
    """A model with its estimated latency. ``EstimateRuntime`` makes it."""

    def __init__(
        self, model: onnx.ModelProto, device: Device, estimates: Sequence[Estimate], options: BuildOptions
    ) -> None:
        """Add up what is executed one after the other.

        Raises:
            ModelError: The shape of an output cannot be known before the model runs.
        """
        self._model, self._device, self._options = model, device, options
        self._nanoseconds = max(sum(one.latency_ns for one in estimates), 1)
        self.doubt = _doubt(estimates)
        self.inputs: Mapping[str, Shape] = shapes_of(inputs_of(model.graph).values())
        self.outputs: Mapping[str, Shape] = output_shapes(model)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs, on the CPU."""
        return self._on_cpu.run(inputs)

    def time(self, repeats: int) -> Nanoseconds:
        """The estimate, so many times."""
        return np.full(repeats, self._nanoseconds, np.int64)

    def save(self, path: Path) -> None:
        """Write the model."""
        files.write_bytes(path, self._model.SerializeToString())

    def describe(self) -> Device:
        """The card."""
        return self._device

    def layout_conversions(self) -> tuple[str, ...]:
        """None are estimated."""
        return ()

    @cached_property
    def _on_cpu(self) -> Engine:
        from trt_layermerge.runtimes.onnxruntime import KIND

        return KIND.open().build(self._model, BuildOptions(self._options.threads, self._options.precision))


def _doubt(estimates: Sequence[Estimate]) -> str | None:
    """The least sure of the estimates, with what all of them make at their lowest and highest."""
    words = {one.calibrated for one in estimates}
    for word in ("uncalibrated", "transferred"):
        if word in words:
            low, high = (1e-6 * sum(getattr(one, end) for one in estimates) for end in ("low_ns", "high_ns"))
            return f"the estimate is {word}: {low:.3g} to {high:.3g} ms"
    return None


def _checksum(card: Card) -> str:
    """Of all that decides an estimate: rows of other constants are of another profile."""
    return hashlib.sha256(json.dumps([asdict(card.sheet), asdict(card.constants)]).encode()).hexdigest()[:8]
