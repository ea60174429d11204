"""How fast each network of each method is, before any is trained; and which one meets a budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import fx, nn

from trt_layermerge.files import parse_json, read_bytes, write_json
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.merging.fold import fold_norms

from .bench import Bench
from .contender import Contender, Rung
from .registry import METHODS

POLICY = MeasurementPolicy(relative_ci=0.02, min_samples=15, max_seconds=0.5)
TOGETHER = 30
"""Networks that are timed interleaved, beside the original."""

MISSED = 0.99
"""A budget is met from so much of it on: latencies of these few samples are no surer."""


class Ladder:
    """What is known of shapes: ``shapes.json`` has what each rung's is, ``speeds.json`` how fast those are."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._shapes, self._speeds = _read(bench.folder / "shapes.json"), _read(bench.folder / "speeds.json")
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

    def climb(self) -> None:
        """Time the shapes that have no speed yet; on a quiet machine."""
        todo = sorted(set(self._shapes.values()) - set(self._speeds))
        original = self.bench.folder / "shapes" / "original.onnx"
        self.bench.sketch(fold_norms(self.bench.widest.network.module), original)
        for begin in range(0, len(todo), TOGETHER):
            part = todo[begin : begin + TOGETHER]
            engines = {shape: self.bench.built(shape_file(self.bench, shape)) for shape in part}
            timings = compare({"original": self.bench.built(original)} | engines, POLICY)
            for shape in part:
                self._speeds[shape] = round(timings["original"].median_ns / timings[shape].median_ns, 4)
            write_json(self.bench.folder / "speeds.json", self._speeds)
            print(f"timed {begin + len(part)} of {len(todo)} shapes", flush=True)

    def speed(self, rung: Rung) -> float | None:
        """How many times as fast as the original; ``None`` where that was not measured."""
        return self._speeds.get(self.shape(rung))

    def shape(self, rung: Rung) -> str:
        """What names its shape; empty where that is not made yet."""
        return str(self._shapes.get(rung.alike, ""))

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
