"""Plans and frontiers as JSON and CSV for other programs: plain dictionaries and text, latencies in ms.

Nothing here is read back; a plan that is to be executed goes into a plan file (``plan``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trt_layermerge.planning.budget import milliseconds
from trt_layermerge.planning.frontier import Frontier
from trt_layermerge.planning.intervals import Interval
from trt_layermerge.planning.plan import Plan
from trt_layermerge.planning.problem import Item
from trt_layermerge.planning.widths import PlannedWidth


def plan_view(plan: Plan, budget_ns: int | None = None, probability: float | None = None) -> dict[str, Any]:
    """A plan: ``method``, ``budget_ms``, ``latency_ms``, ``objective``, ``blocks``; ``probability`` where it is known.

    Latencies are the doubles nearest to them. Of a block ``kernel`` and ``depthwise`` are None where they are not
    known; ``chain`` is there where the network has several, ``breaks`` where method ``depth`` has inner ones, from
    start to end. ``widths`` are there where channel groups may be narrowed: of each ``group`` how many ``channels`` of
    how many it has, and the ``importance`` of that.

    Args:
        plan: The plan.
        budget_ns: The budget it was made for, in ns; None where there was none.
        probability: Probability that the plan meets it (``confidence``).
    """
    chains = len({chain for item in plan.items for chain in (item.chain, item.last_chain)})
    return {
        "method": plan.method,
        "budget_ms": None if budget_ns is None else budget_ns / 1e6,
        "latency_ms": plan.latency_ms,
        "objective": plan.objective,
        **({} if probability is None else {"probability": probability}),
        "blocks": [_block(item, chains) for item in plan.items],
        **({"widths": [_width(width) for width in plan.widths]} if plan.widths else {}),
    }


def frontier_view(frontier: Frontier) -> list[dict[str, float]]:
    """The points of a frontier, ``latency_ms`` and ``objective``, the fastest first."""
    return [{"latency_ms": latency / 1e6, "objective": value} for latency, value in _points(frontier)]


def plan_csv(plan: Plan, *, widths: bool = False) -> str:
    """The blocks of a plan as CSV: start, end, kernel, depthwise, latency_ms, importance; unknown cells are empty.

    With ``widths`` there is a column of the widths that a block names: ``1|3=24 2=16``.
    """
    lines = ["start,end,kernel,depthwise,latency_ms,importance" + (",widths" if widths else "")]
    for item in plan.items:
        kernel = "" if item.kernel is None else item.kernel
        depthwise = "" if item.depthwise is None else int(item.depthwise)
        named = "," + " ".join(f"{key}={channels}" for key, channels in item.widths) if widths else ""
        lines.append(f"{item.start},{item.end},{kernel},{depthwise},{_ms(item.latency_ns)},{item.value!r}{named}")
    return "\n".join(lines) + "\n"


def frontier_csv(frontier: Frontier) -> str:
    """The points of a frontier as CSV: latency_ms, exact in decimal, and objective."""
    lines = ["latency_ms,objective", *(f"{_ms(latency)},{value!r}" for latency, value in _points(frontier))]
    return "\n".join(lines) + "\n"


def fastest_csv(intervals: Iterable[Interval]) -> str:
    """The table of stage one of method ``depth`` as CSV: start, end, latency_ms and breaks such as ``0|1|4``."""
    lines = ["start,end,latency_ms,breaks"]
    for one in sorted(intervals, key=lambda one: (one.start, one.end)):
        lines.append(f"{one.start},{one.end},{_ms(one.latency_ns)},{'|'.join(map(str, one.breaks))}")
    return "\n".join(lines) + "\n"


def fastest_view(intervals: Iterable[Interval]) -> list[dict[str, Any]]:
    """The same as JSON, with ``breaks`` as a list."""
    return [
        {"start": one.start, "end": one.end, "latency_ms": one.latency_ns / 1e6, "breaks": list(one.breaks)}
        for one in sorted(intervals, key=lambda one: (one.start, one.end))
    ]


def _block(item: Item, chains: int) -> dict[str, Any]:
    block: dict[str, Any] = {"chain": item.chain} if chains > 1 else {}
    block |= {} if item.end_chain is None else {"end_chain": item.end_chain}
    block |= {
        "start": item.start,
        "end": item.end,
        "kernel": item.kernel,
        "depthwise": item.depthwise,
        "latency_ms": item.latency_ns / 1e6,
        "importance": item.value,
    }
    return block | ({"breaks": [item.start, *item.breaks, item.end]} if item.breaks else {})


def _width(width: PlannedWidth) -> dict[str, Any]:
    return {"group": width.group, "channels": width.channels, "of": width.full, "importance": width.value}


def _points(frontier: Frontier) -> list[tuple[int, float]]:
    return list(zip(frontier.latency_ns.tolist(), frontier.value.tolist(), strict=True))


def _ms(latency_ns: int) -> str:
    return milliseconds(latency_ns).removesuffix(" ms")
