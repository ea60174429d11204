"""Deciding between plans by measurement."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pipeline.stopping import StoppedError, StoppingIn
from trt_layermerge.errors import TableError
from trt_layermerge.journal import Journal
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.dry_run import job_plan
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.measured_plans import REFINEMENT, MeasuredPlans, digest_of
from trt_layermerge.pipeline.refine import ranked, refine_stage
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.plan import Plan, read_plan
from trt_layermerge.planning.problem import Item
from trt_layermerge.planning.widths import PlannedWidth


@pytest.fixture
def job(done: Job) -> Job:
    """The tables of a job that was done, for another one that measures plans."""
    return replace(done, refine=3, recipe=None, budget=Budget.parse("1"))


def test_what_was_measured_decides_and_is_reported(job: Job, recorder: Any) -> None:
    result = whole_job(open_session(job), recorder)
    refined = result.manifest.refined
    assert recorder.stages[-6:-4] == ["refine", "merge"] and len(refined) > 1
    assert [one.rank for one in refined] == list(range(1, len(refined) + 1))
    assert sorted(one.measured_rank for one in refined) == [one.rank for one in refined]
    assert [one.chosen for one in refined] == [one.measured_rank == 1 for one in refined]
    objectives = [one.objective for one in refined]
    assert objectives == sorted(objectives, reverse=True)
    assert all(one.predicted_ms > 0 and one.measured_ms > 0 and one.held_out_loss > 0 for one in refined)
    file = read_plan(job.plan_file)
    (chosen,) = (one for one in file.certificate.refined if one.chosen)
    assert (chosen.predicted_ns, chosen.objective) == (file.plan.latency_ns, file.plan.objective)
    assert "Plans that were measured" in (job.output / "report.html").read_text()
    assert not list(job.output.glob("plan-*.onnx"))
    assert result.as_json().keys() == json.loads((job.output / "result.json").read_bytes()).keys()
    recorder.stages = []
    again = whole_job(open_session(job), recorder)
    assert again.manifest.refined == refined and "refine" not in recorder.stages, "what is decided stays decided"


def test_an_interrupted_job_measures_on_where_it_stopped(job: Job, recorder: Any, counted: dict[str, int]) -> None:
    session = open_session(job)
    with pytest.raises(StoppedError):
        refine_stage(session, StoppingIn("refine", 1))
    assert counted == {"execute_plan": 1, "compare": 0}
    plans = len(refine_stage(session, recorder).certificate.refined)
    assert counted == {"execute_plan": plans, "compare": 1}
    (journal,) = job.output.glob("refine-*.jsonl")
    before = journal.read_bytes()
    job.plan_file.unlink()
    refine_stage(session, recorder)
    assert counted == {"execute_plan": plans, "compare": 1} and journal.read_bytes() == before


def test_a_journal_cut_anywhere_is_gone_on_with_and_holds_nothing_twice(
    job: Job, recorder: Any, counted: dict[str, int]
) -> None:
    session = open_session(job)
    refine_stage(session, recorder)
    (journal,) = job.output.glob("refine-*.jsonl")
    whole = journal.read_bytes()
    ends = [number for number, byte in enumerate(whole, 1) if byte == ord("\n")]
    cuts = [*ends[:-1], ends[0] - 1, ends[-1] - 1]  # whole rows, and rows torn in the middle
    for cut in cuts:
        journal.write_bytes(whole[:cut])
        job.plan_file.unlink()
        refine_stage(session, recorder)
        *executed, timed = [row for _, row in Journal.read(journal, REFINEMENT)]
        assert [row["plan"] for row in executed] == list(timed["measured_ns"]), "each once"
    assert counted["compare"] == 1 + len(cuts)


def test_a_plan_whose_network_is_gone_is_carried_out_again(job: Job, recorder: Any, counted: dict[str, int]) -> None:
    session = open_session(job)
    with pytest.raises(StoppedError):
        refine_stage(session, StoppingIn("refine", 1))
    (file,) = job.output.glob("plan-*.onnx")
    file.write_bytes(b"")
    plans = len(refine_stage(session, recorder).certificate.refined)
    assert counted == {"execute_plan": plans + 1, "compare": 1}


DAMAGED = [
    *("{}", '{"onnx": 1}', "[]", "no row", '{"plan": "x", "measured_ns": 1, "original_ns": 1}'),
    *('{"original_ns": 1, "measured_ns": {"x": 0}}', '{"original_ns": 1, "measured_ns": {"x": true}}'),
]


def test_a_damaged_journal_is_named_and_left_alone(job: Job, recorder: Any) -> None:
    session = open_session(job)
    with pytest.raises(StoppedError):
        refine_stage(session, StoppingIn("refine", 1))
    (journal,) = job.output.glob("refine-*.jsonl")
    sound = journal.read_text()
    for row in DAMAGED:
        journal.write_text(f"{sound}{row}\n")
        with pytest.raises(TableError, match=r"refine-\w+\.jsonl, line 3"):
            refine_stage(session, recorder)
        assert journal.read_text() == f"{sound}{row}\n"


def test_it_is_announced(job: Job) -> None:
    assert {"stage": "refine", "what": "3 plans"}.items() <= job_plan(open_session(job))[2].items()


@st.composite
def figures(draw: st.DrawFn) -> list[tuple[int, float]]:
    """Measured latency of some plans, and loss, for an original of 100 ns."""
    return draw(st.lists(st.tuples(st.integers(1, 120), st.floats(0, 9)), min_size=1, max_size=6))


def known(found: list[tuple[int, float]]) -> tuple[list[Plan], Any]:
    names = [str(number) for number in range(len(found))]
    plans = [Plan("joint", (Item(0, 0, 1, name, "keep", 50, 0.0),), 50, 0.0, 1000) for name in names]
    measured = MeasuredPlans(Journal(Path("none"), REFINEMENT, {}, list(rows(plans, found))))
    return plans, measured


def rows(plans: list[Plan], found: list[tuple[int, float]]) -> Iterator[tuple[int, dict[str, Any]]]:
    for plan, (latency, loss) in zip(plans, found, strict=True):
        yield 2, {"plan": digest_of(plan), "loss": loss, "onnx": ""}
        yield 3, {"original_ns": 100, "measured_ns": {digest_of(plan): latency}}


@given(figures())
def test_the_lowest_loss_within_the_budget_or_else_the_fastest(found: list[tuple[int, float]]) -> None:
    plans, measured = known(found)
    refined = ranked(Job("m", Path("out"), budget=Budget.parse("0.6")), plans, measured)
    (best,) = (one for one in refined if one.chosen)
    within = [loss for latency, loss in found if latency <= 60]
    if within:
        assert best.measured_ns <= 60 and best.loss == min(within)
    else:
        assert best.measured_ns == min(latency for latency, _ in found)


def test_a_budget_in_ms_is_one_of_the_clock() -> None:
    plans, measured = known([(60, 1.0), (50, 2.0)])
    for text, rank in (("0.6", 1), ("0.00006ms", 1), ("0.000055ms", 2), ("1.7x", 2)):
        refined = ranked(Job("m", Path("out"), budget=Budget.parse(text)), plans, measured)
        assert [one.rank for one in refined if one.chosen] == [rank]


def test_plans_of_other_widths_are_other_plans() -> None:
    (plan,), _ = known([(50, 0.0)])
    widths = [(PlannedWidth("g", channels, 8, 0.0),) for channels in (8, 4)]
    assert len({digest_of(plan), *(digest_of(replace(plan, widths=one)) for one in widths)}) == 3
