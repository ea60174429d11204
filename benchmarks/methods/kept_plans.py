"""Plans on disk: a machine that trains rows need not be the one whose latencies they were planned by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from trt_layermerge.files import parse_json, read_bytes, sha256, write_json
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.plan import Plan, PlanFile, read_plan, write_plan

from .bench import Bench

ANY = Budget.parse("1.0")
"""Of the original's latency: plan files name a budget, and these were made for many."""


def kept_plans(bench: Bench, name: str, make: Callable[[], Iterable[Plan]]) -> Sequence[Plan]:
    """The plans of a name, made once for the tables that there are.

    Args:
        bench: The network.
        name: Says what decides the plans beside tables and budgets.
        make: Makes them.
    """
    folder, tables = bench.folder / "plans" / name, _tables(bench)
    index = folder / "tables.json"
    if not index.exists() or parse_json(read_bytes(index))["tables"] != tables:
        plans = list(make())
        for number, plan in enumerate(plans):
            folder.mkdir(parents=True, exist_ok=True)
            write_plan(folder / f"{number}.json", PlanFile.of(plan, ANY, {}))
        write_json(index, {"tables": tables, "plans": len(plans)})
    count = int(parse_json(read_bytes(index))["plans"])
    return [read_plan(folder / f"{number}.json").plan for number in range(count)]


def _tables(bench: Bench) -> str:
    """Hash of what is planned by."""
    names = ("importance.jsonl", "correction.json")
    files = [*(bench.folder / name for name in names), *sorted((bench.folder / "profiles").rglob("*.jsonl"))]
    parts = [*(sha256(path) for path in files if path.exists()), repr((bench.case.budgets, bench.case.untrained))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
