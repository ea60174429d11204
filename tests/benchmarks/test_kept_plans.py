"""Plans on disk are made again where what they were made for has changed, and read where it has not."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.methods.kept_plans import kept_plans
from trt_layermerge.planning.plan import Plan


def test_plans_for_other_speeds_or_tables_are_others(tmp_path: Path) -> None:
    importance = tmp_path / "importance.jsonl"
    importance.write_text("measured")
    job = SimpleNamespace(importance_file=importance, correction_file=tmp_path / "correction.json")
    bench: Any = SimpleNamespace(folder=tmp_path)
    session: Any = SimpleNamespace(job=job, profile=())
    made: list[Sequence[float]] = []

    def plans(speeds: Sequence[float]) -> Sequence[Plan]:
        def make() -> Iterator[Plan]:
            made.append(speeds)
            for speed in speeds:
                yield Plan("joint", (), int(1e6 / speed), 0.0, 1_000_000, ())

        return kept_plans(bench, "joint", session, speeds, make)

    first = plans([1.5, 2.0])
    assert [plan.latency_ns for plan in first] == [666_666, 500_000]
    assert plans([1.5, 2.0]) == first
    assert len(made) == 1, "read from disk"
    assert [plan.latency_ns for plan in plans([1.5, 1.6, 2.0])] == [666_666, 625_000, 500_000]
    importance.write_text("measured again")
    plans([1.5, 1.6, 2.0])
    assert made == [[1.5, 2.0], [1.5, 1.6, 2.0], [1.5, 1.6, 2.0]]
