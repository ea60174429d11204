"""The two engines that a job ends with: by which of the compiler's routes, and how they differ from build to build.

A route is tried where a setting names it. It is taken where its engine computes the same and is surely faster than the
usual one, both timed in turns; the engine that is delivered is then built by it and verified like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from trt_layermerge.delivery.per_network import PerNetwork
from trt_layermerge.errors import LayerMergeError, say
from trt_layermerge.latency.measure import compare, compare_builds
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.network.inputs import batched_shapes
from trt_layermerge.pipeline.session import Session
from trt_layermerge.runtimes.base import BuildOptions, Engine, Shape

Check = Callable[[Engine], object]
"""Raises an error where an engine computes something else than its network."""


@dataclass(frozen=True)
class Route:
    """How a network is built.

    Attributes:
        options: With which.
        name: Of the route; empty for the usual one, ``None`` where no other was tried.
    """

    options: BuildOptions
    name: str | None = None


def fastest_route(session: Session, model: Path, shapes: Mapping[str, Shape], check: Check) -> Route:
    """The surely fastest of the routes that the job's settings name, for one network.

    Args:
        session: Of the job.
        model: The network as ONNX.
        shapes: Of its inputs.
        check: What every route's engine has to pass; one that does not, or cannot be built, is told of and left out.
    """
    job, runtime = session.job, session.runtime
    variations = runtime.variations(job.options)
    if not variations:
        return Route(job.options)
    engines: dict[str, Engine] = {"": runtime.build(model, job.options, shapes)}
    for name, options in variations.items():
        try:
            engine = runtime.build(model, options, shapes)
            check(engine)
        except LayerMergeError as error:
            say(f"the build route {name!r} is left out: {error.message}")
        else:
            engines[name] = engine
    timings = compare(engines, job.final_policy)
    usual = timings[""]
    better = [name for name in timings if timings[name].ci_high_ns < usual.ci_low_ns]
    name = min(better, key=lambda one: timings[one].median_ns, default="")
    return Route(variations.get(name, job.options), name)


def timed_finally(
    session: Session, engines: PerNetwork[Engine], models: PerNetwork[Path], routes: PerNetwork[Route]
) -> PerNetwork[Timing]:
    """Time both engines in turns; where the job asks for it with others that were built anew, as one draw of several.

    Args:
        session: Of the job.
        engines: What was delivered, and the original's.
        models: As ONNX.
        routes: How they were built.
    """
    job, runtime = session.job, session.runtime
    shapes = batched_shapes(session.network.inputs, job.batch)
    built: dict[str, list[Engine]] = {}
    for (name, engine), model, route in zip(engines.named.items(), models, routes, strict=True):
        anew = replace(route.options, anew=True)
        built[name] = [engine, *(runtime.build(model, anew, shapes) for _ in range(1, job.policy.rebuilds))]
    timings = compare_builds(built, job.final_policy)
    return PerNetwork(**{name: timing.with_builds() for name, timing in timings.items()})
