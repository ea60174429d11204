from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.errors import TableError
from trt_layermerge.pipeline.correction_file import keep_correction, kept_correction
from trt_layermerge.pipeline.fidelity_correction import Correction, FidelityErrors, PlanTiming
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_frontier import (
    frontier_of,
    kept_ns,
    latency_ns,
    operations_of,
    weights_of,
    worthwhile,
)
from trt_layermerge.pipeline.measuring import baseline_stage, importance_table
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.pipeline.solving import sized_in


def test_what_pays_is_faster_than_keeping(done: Job) -> None:
    session = open_session(done)
    kept = {c.block.end: latency_ns(session, c) for c in session.choices if c.kind is Kind.KEEP}
    paying = worthwhile(session)
    assert {c.block.end for c in paying if c.kind is Kind.KEEP} == kept.keys() == {1, 2, 3, 4}
    for choice in session.choices:
        latency, keeping = (
            latency_ns(session, choice),
            [kept[i + 1] for i in range(choice.block.start, choice.block.end)],
        )
        assert latency is not None and None not in keeping
        assert (choice in paying) == (choice.kind is Kind.KEEP or latency < sum(filter(None, keeping)))


def test_without_latencies_nothing_can_pay(tmp_path: Path, quick_job: Any) -> None:
    with pytest.raises(TableError, match=r"no latency for layer 0:0-1") as caught:
        worthwhile(open_session(quick_job(tmp_path)))
    assert "trt-layermerge profile" in str(caught.value)


@pytest.mark.parametrize("terms", [(0.2, 0.0, 0.0), (0.1, -0.05, 0.0), (0.0, 0.0, -0.1)])
def test_a_corrected_frontier_is_what_was_fitted(done: Job, recorder: Any, terms: tuple[float, float, float]) -> None:
    """Every plan of it takes what the correction says of the same plan without it."""
    session = open_session(done)
    table, baseline = importance_table(session), baseline_stage(session, recorder)
    keep_correction(session, Correction("saved", *terms, FidelityErrors.of([0.0])))
    original, kept = baseline.median_ns, sum(kept_ns(session).values())
    share = min(1.0, original / kept)
    layers = [session.sized[choice][0] for choice in session.choices if choice.kind is Kind.KEEP]
    corrected = frontier_of(session, baseline, table)
    for number in range(len(corrected)):
        plan = corrected.plan(number)
        sized = list(sized_in(session, plan))
        alone = sum(latency_ns(session, one.choice) or 0 for one in sized)
        timed = PlanTiming(
            1 - share * (kept - alone) / original,
            measured=1.0,
            measured_ns=1,
            removed=1 - sum(map(operations_of, sized)) / sum(map(operations_of, layers)),
            weights=1 - sum(map(weights_of, sized)) / sum(map(weights_of, layers)),
        )
        expected = Correction("saved", *terms, FidelityErrors.of([0.0])).corrected(timed)
        assert plan.latency_ns / original == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert list(frontier_of(session, baseline, table, corrected=False).latency_ns) != list(corrected.latency_ns)


@pytest.mark.parametrize(
    "change", [{"kind": "more"}, {"saved": 1.5}, {"removed": "much"}, {"unseen": {}}, {"format": "trt_layermerge.plan"}]
)
def test_a_damaged_correction_is_named(done: Job, recorder: Any, change: dict[str, Any]) -> None:
    session = open_session(done)
    keep_correction(session, Correction("saved", 0.1, 0.0, 0.0, FidelityErrors.of([0.0])))
    assert kept_correction(session) is not None
    assert kept_correction(replace(session, job=replace(done, batch=done.batch + 1))) is None, "of another batch"
    fields = json.loads(done.correction_file.read_bytes())
    done.correction_file.write_text(json.dumps(fields | change))
    with pytest.raises(TableError, match=r"correction\.json is damaged"):
        frontier_of(session, baseline_stage(session, recorder), None)
