"""The two final engines, in a runtime whose builder does as it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trt_layermerge.delivery.per_network import PerNetwork
from trt_layermerge.errors import Caution, ModelError, VerificationError
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.pipeline.final_engines import Route, fastest_route, timed_finally
from trt_layermerge.runtimes.base import BuildOptions

OPTIONS = BuildOptions()
POLICY = MeasurementPolicy(relative_ci=0.05, min_samples=6, max_seconds=0.05)
USUAL_NS = 1e6


@dataclass
class Timed:
    run_ns: float

    def time(self, repeats: int) -> np.ndarray:
        return np.full(repeats, self.run_ns).astype(np.int64)


@dataclass
class Builder:
    """A runtime: a route is a number of threads, and says how much longer a run then takes."""

    routes: Mapping[str, float] = field(default_factory=dict)
    refuses: tuple[str, ...] = ()
    anew: float = 0.0
    built: list[tuple[Path, BuildOptions]] = field(default_factory=list)

    def variations(self, options: BuildOptions) -> Mapping[str, BuildOptions]:
        return {name: replace(options, threads=2 + number) for number, name in enumerate(self.routes)}

    def build(self, model: Path, options: BuildOptions, shapes: object) -> Timed:
        self.built.append((model, options))
        name = "" if options.threads == 1 else list(self.routes)[options.threads - 2]
        if name in self.refuses:
            raise ModelError(f"no {name}")
        draws = sum(one.anew for _, one in self.built) if options.anew else 0
        return Timed(USUAL_NS * self.routes.get(name, 1.0) * (1 + self.anew * draws))


def session_of(runtime: Builder, rebuilds: int = 1) -> Any:
    job = SimpleNamespace(options=OPTIONS, final_policy=POLICY, policy=replace(POLICY, rebuilds=rebuilds), batch=2)
    network = SimpleNamespace(inputs=())
    return SimpleNamespace(job=job, runtime=runtime, network=network)


def route(runtime: Builder, check: Any = lambda engine: None) -> Route:
    return fastest_route(session_of(runtime), Path("net.onnx"), {}, check)


def test_where_nothing_else_is_named_nothing_is_built() -> None:
    runtime = Builder()
    assert route(runtime) == Route(OPTIONS) and runtime.built == []


@pytest.mark.parametrize(
    ("routes", "name"), [({"-a=on": 0.8, "-a=off": 0.9}, "-a=on"), ({"-a=on": 1.2}, ""), ({"-a=on": 1.0}, "")]
)
def test_the_surely_fastest_is_taken_and_else_the_usual_one(routes: dict[str, float], name: str) -> None:
    found = route(runtime := Builder(routes))
    assert found.name == name and found.options == runtime.variations(OPTIONS).get(name, OPTIONS)


def test_one_that_cannot_be_built_or_computes_something_else_is_told_of_and_left_out() -> None:
    def check(engine: Timed) -> None:
        if engine.run_ns < 0.6 * USUAL_NS:
            raise VerificationError("off by 3")

    with pytest.warns(Caution) as told:
        found = route(Builder({"-a=1": 0.5, "-b=1": 0.7, "-c=1": 0.1}, refuses=("-c=1",)), check)
    assert found.name == "-b=1"
    assert [str(one.message) for one in told] == [
        "the build route '-a=1' is left out: off by 3",
        "the build route '-c=1' is left out: no -c=1",
    ]


@pytest.mark.parametrize("rebuilds", [1, 3])
def test_engines_that_are_built_again_are_part_of_the_interval(rebuilds: int) -> None:
    runtime, models = Builder(anew=0.02), PerNetwork(Path("original"), Path("compressed"))
    engines: Any = PerNetwork(Timed(USUAL_NS), Timed(USUAL_NS / 2))
    routes = PerNetwork(Route(OPTIONS), Route(replace(OPTIONS, precision="fp16")))
    timings = timed_finally(session_of(runtime, rebuilds), engines, models, routes)
    assert [model.name for model, _ in runtime.built] == ["original"] * (rebuilds - 1) + ["compressed"] * (rebuilds - 1)
    assert all(options.anew for _, options in runtime.built)
    assert {o.precision for m, o in runtime.built if m.name == "compressed"} <= {"fp16"}
    for timing in timings:
        assert timing.builds == rebuilds
        if rebuilds == 1:
            assert timing.build_spread is None and timing.ci_low_ns == timing.ci_high_ns
        else:
            assert (
                timing.build_spread > 0
                and timing.ci_high_ns - timing.ci_low_ns > timing.build_spread * timing.median_ns
            )
