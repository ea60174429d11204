"""Plans on disk: a machine that trains rows need not be the one whose latencies they were planned by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from trt_layermerge.files import parse_json, read_bytes, sha256, write_json
from trt_layermerge.pipeline.session import Session
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.plan import Plan, PlanFile, read_plan, write_plan

from .bench import Bench

ANY = Budget.parse("1.0")
"""Of the original's latency: plan files name a budget, and these were made for many."""


def kept_plans(
    bench: Bench, name: str, session: Session, speeds: Sequence[float], make: Callable[[], Iterable[Plan]]
) -> Sequence[Plan]:
    """The plans of a name, made once for the tables that there are; on a machine without latencies, those that came.

    Args:
        bench: The network.
        name: Says what decides the plans beside tables and speeds.
        session: Its tables.
        speeds: How fast they are to be.
        make: Makes them.
    """
    folder = bench.folder / "plans" / name
    index, rests_on = folder / "tables.json", {"importance": sha256(session.job.importance_file)}
    rests_on["speeds"] = " ".join(f"{speed:.4f}" for speed in speeds)
    if session.job.correction_file.exists():
        rests_on["correction"] = sha256(session.job.correction_file)
    if len(session.profile):
        rests_on["profile"] = session.profile.sha256
    known = parse_json(read_bytes(index)) if index.exists() else {}
    if not rests_on.items() <= known.items():
        plans = list(make())
        folder.mkdir(parents=True, exist_ok=True)
        for number, plan in enumerate(plans):
            write_plan(folder / f"{number}.json", PlanFile.of(plan, ANY, {}))
        known = rests_on | {"plans": len(plans)}
        write_json(index, known)
    return [read_plan(folder / f"{number}.json").plan for number in range(known["plans"])]
