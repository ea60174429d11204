"""How fast each network of each method is, before any is trained; and which one meets a budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import fx, nn

from trt_layermerge.errors import InputError
from trt_layermerge.files import parse_json, read_bytes, write_json
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.merging.fold import fold_norms

from .bench import Bench
from .contender import Contender, Rung
from .registry import METHODS

FIRST = MeasurementPolicy(relative_ci=0.02, min_samples=15, max_seconds=0.5)
"""What all networks are timed by."""

SURE = MeasurementPolicy(relative_ci=0.01, min_samples=60, max_seconds=6.0)
"""What those are timed by, once more, that are to stand in a row."""

TOGETHER = 30
"""Networks that are timed interleaved, beside the original."""

ORIGINAL = "original"
"""Stands for its shape."""

MISSED = 0.99
"""A budget is met from so much of it on: latencies are no surer."""


class Ladder:
    """What is known of shapes: ``shapes.json`` has what each rung's is, ``speeds.json`` how fast those are.

    ``sure.json`` has the speeds of those that were timed for longer.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._shapes, self._speeds, self._sure = (
            _read(bench.folder / name) for name in ("shapes.json", "speeds.json", "sure.json")
        )
        self._rungs: dict[Contender, list[Rung]] = {}

    def rungs(self, contender: Contender) -> list[Rung]:
        """Those of a contender, made once."""
        if contender not in self._rungs:
            self._rungs[contender] = list(contender.rungs(self.bench))
        return self._rungs[contender]

    def make(self, methods: Iterable[str]) -> None:
        """Write the shapes of all rungs that are not known yet as ONNX; equal ones once."""
        for contender in _contenders(methods):
            for rung in self.rungs(contender):
                if rung.alike not in self._shapes:
                    module = rung.shape(self.bench)
                    shape = self._shapes[rung.alike] = _shape(module)
                    if shape not in self._speeds and not shape_file(self.bench, shape).exists():
                        self.bench.sketch(module, shape_file(self.bench, shape))
            write_json(self.bench.folder / "shapes.json", self._shapes)

    def climb(self, methods: Iterable[str], budgets: Sequence[float] | None = None) -> None:
        """Time the shapes that have no speed yet, then for longer those that meet a budget; on a quiet machine.

        What stands in a row is the first network that was timed to be fast enough: amid many that are nearly so, one
        whose timing erred in its favour. So it counts only once a longer timing says the same.
        """
        self.bench.sketch(fold_norms(self.bench.widest.network.module), shape_file(self.bench, ORIGINAL))
        self._time(sorted(set(self._shapes.values()) - set(self._speeds)), self._speeds, "speeds.json", FIRST)
        case, contenders = self.bench.case, list(_contenders(methods))
        asked = sorted(set(budgets or (*case.budgets, *case.untrained)))
        while True:
            rungs = [rung for one in contenders for budget in asked if (rung := self.answer(one, budget)) is not None]
            if not (unsure := sorted({self.shape(rung) for rung in rungs} - set(self._sure))):
                return
            self._time(unsure, self._sure, "sure.json", SURE)

    def _time(self, shapes: Sequence[str], known: dict[str, Any], file: str, policy: MeasurementPolicy) -> None:
        """Add how fast shapes are to what is known."""
        for begin in range(0, len(shapes), TOGETHER):
            part = shapes[begin : begin + TOGETHER]
            engines = {shape: self.bench.built(shape_file(self.bench, shape)) for shape in (ORIGINAL, *part)}
            timings = compare(engines, policy)
            for shape in part:
                known[shape] = round(timings[ORIGINAL].median_ns / timings[shape].median_ns, 4)
            write_json(self.bench.folder / file, known)
            print(f"timed {begin + len(part)} of {len(shapes)} shapes", flush=True)

    def speed(self, rung: Rung) -> float | None:
        """How many times as fast as the original; ``None`` where that was not measured."""
        shape = self.shape(rung)
        return self._sure.get(shape, self._speeds.get(shape))

    def shape(self, rung: Rung) -> str:
        """What names its shape; empty where that is not made yet."""
        return str(self._shapes.get(rung.alike, ""))

    def delivered(self, method: str, network: str) -> Path:
        """A network of a method as it would be delivered, its weights any.

        Shapes are written by a faster exporter, whose files are up to 3.4 % faster than those that people get.

        Raises:
            InputError: The method has no such network any more.
        """
        path = self.bench.folder / "delivered" / f"{network}.onnx"
        if not path.exists():
            rungs = (rung for one in METHODS[method].settings for rung in self.rungs(one) if rung.name == network)
            if (rung := next(rungs, None)) is None:
                raise InputError(
                    f"a row of {method} is of {network}, which the method has not any more: its tables are others now",
                    hint=f"delete the rows of {method} in {self.bench.trained / 'rows'}, and make them again",
                )
            self.bench.write(rung.shape(self.bench), path)
        return path

    def answer(self, contender: Contender, budget: float) -> Rung | None:
        """The least changed network that meets a budget."""
        for rung in self.rungs(contender):
            if (self.speed(rung) or 0.0) >= MISSED * budget:
                return rung
        return None

    def fastest(self, contenders: Iterable[Contender]) -> float:
        """The fastest of all networks of some settings; 0 where there are none."""
        speeds = (self.speed(rung) for one in contenders for rung in self.rungs(one))
        return max((speed for speed in speeds if speed is not None), default=0.0)


def shape_file(bench: Bench, shape: str) -> Path:
    """A network of a shape, its weights any."""
    return bench.folder / "shapes" / f"{shape}.onnx"


def _contenders(methods: Iterable[str]) -> Iterator[Contender]:
    for method in methods:
        yield from METHODS[method].settings


def _read(path: Path) -> dict[str, Any]:
    return dict(parse_json(read_bytes(path))) if path.exists() else {}


def _shape(module: nn.Module) -> str:
    """Hash of what latency depends on: the graph, and the shapes of all tensors."""
    graph = str(module.graph) if isinstance(module, fx.GraphModule) else type(module).__name__
    layers = [f"{name} {part.extra_repr()}" for name, part in module.named_modules() if not list(part.children())]
    return hashlib.sha256(json.dumps([graph, layers]).encode()).hexdigest()[:16]
