"""A frontier as a picture: objective over latency, with plans that are marked; matplotlib draws it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trt_layermerge.errors import InputError, UsageError
from trt_layermerge.files import replacing
from trt_layermerge.planning.frontier import Frontier
from trt_layermerge.planning.plan import Plan

SUFFIXES = (".png", ".svg")


def require_plot(path: Path) -> None:
    """See that a picture can be drawn, before anything long begins.

    Raises:
        UsageError: The file is to be neither PNG nor SVG.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot draw {path}: its name ends in neither {' nor '.join(SUFFIXES)}")


def write_plot(path: Path, frontier: Frontier, plans: Sequence[Plan] = (), budget_ns: int | None = None) -> None:
    """Draw a frontier into a PNG or an SVG file.

    Args:
        path: The file; its suffix says which of the two.
        frontier: What to draw.
        plans: Plans to mark.
        budget_ns: A budget to mark, in ns.

    Raises:
        UsageError: See ``require_plot``.
        InputError: The file cannot be written.
    """
    require_plot(path)
    from matplotlib.figure import Figure  # takes half a second

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.step(frontier.latency_ns / 1e6, frontier.value, where="post", label=f"{len(frontier)} plans")
    axes.plot(frontier.latency_ns / 1e6, frontier.value, ".", color="C0", markersize=3)
    if plans:
        axes.plot(
            [plan.latency_ms for plan in plans], [plan.objective for plan in plans], "o", color="C1", label="plan"
        )
    if budget_ns is not None:
        axes.axvline(budget_ns / 1e6, color="0.5", linestyle="--", label="budget")
    axes.set(xlabel="predicted latency, ms", ylabel="objective", title=f"method {frontier.problem.method}")
    axes.legend(loc="lower right")
    try:
        with replacing(path) as neighbour:
            figure.savefig(neighbour, format=path.suffix[1:].lower(), metadata=_undated(path))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}", hint="name another file") from error


def _undated(path: Path) -> dict[str, None] | None:
    """Metadata without the time, so that the same frontier makes the same file."""
    return {"Date": None} if path.suffix.lower() == ".svg" else None
