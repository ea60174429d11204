"""Jobs that plan widths: rows of narrowed groups, plans that say which channels stay, and networks without the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.delivery.verification import verify_delivery
from trt_layermerge.errors import TableError, UsageError
from trt_layermerge.importance.estimators.finetune import Finetune
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.job import SHARES, Job
from trt_layermerge.pipeline.job_frontier import frontier_of
from trt_layermerge.pipeline.measuring import baseline_stage, importance_table
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.pipeline.solving import chosen, sized_in, with_kept
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.plan import read_plan, write_plan
from trt_layermerge.report.result import Result

HERE = Path(__file__).parent


def narrow_job(folder: Path, quick_job: Any, **changes: object) -> Job:
    """On the estimate of a card, whose rows are the same in every run."""
    settings: dict[str, object] = {"method": "width", "method_settings": {"widths": "1.0,0.5"}, "batch": 64}
    job = quick_job(folder, model=str(HERE / "assets" / "wide.py"), runtime="estimate:rtx-2080-ti", **settings)
    return replace(job, budget=Budget.parse("0.97"), recipe=None, **changes)


@pytest.fixture(scope="module")
def narrowed(tmp_path_factory: pytest.TempPathFactory, quick_job: Any, request: Any) -> tuple[Job, Result]:
    from tests.pipeline.conftest import Recorder

    job = narrow_job(tmp_path_factory.mktemp("narrow"), quick_job)
    return job, whole_job(open_session(job), Recorder())


@pytest.mark.parametrize(
    ("method", "settings", "shares"),
    [
        ("joint", {}, ()),
        ("joint", {"widths": "all"}, SHARES),
        ("joint", {"widths": "0.5"}, (0.5,)),
        ("width", {}, SHARES),
        ("width", {"widths": "0.5"}, (0.5,)),
        ("depth", {}, ()),
    ],
)
def test_who_asks_narrows_and_the_method_that_does_nothing_else(
    tmp_path: Path, quick_job: Any, method: str, settings: dict[str, str], shares: tuple[float, ...]
) -> None:
    assert narrow_job(tmp_path, quick_job, method=method, method_settings=settings).shares == shares


def test_a_job_that_narrows_delivers_a_narrower_network(narrowed: tuple[Job, Result]) -> None:
    job, _ = narrowed
    file = read_plan(job.plan_file)
    narrower = [width for width in file.plan.widths if width.channels < width.full]
    assert narrower and all(item.kind == "keep" for item in file.plan.items), "method width keeps every layer"
    assert all(len(width.kept) == width.channels for width in narrower)
    manifest = verify_delivery(job.output / "manifest.json").manifest
    assert manifest.compressed.layers == manifest.original.layers
    assert manifest.compressed.parameters < manifest.original.parameters
    assert manifest.plan == json.loads(job.plan_file.read_bytes())
    assert "channels that stay" in (job.output / "report.html").read_text()
    graph = onnx.load(job.output / "compressed.onnx").graph
    shapes = {one.dims[0] for one in graph.initializer if len(one.dims) == 4}
    assert shapes & {width.channels for width in narrower}


def test_a_plan_costs_what_its_rows_add_up_to(narrowed: tuple[Job, Result], recorder: Any) -> None:
    job, _ = narrowed
    session = open_session(job)
    baseline, table = baseline_stage(session, recorder), importance_table(session)
    frontier = frontier_of(session, baseline, table)
    for number in range(len(frontier)):
        plan = with_kept(frontier.plan(number), table)
        rows = [session.profile.get(one) for sized in sized_in(session, plan) for one in sized.signatures]
        assert all(row is not None and row.timing is not None for row in rows)
        total = sum(row.timing.median_ns for row in rows if row is not None and row.timing is not None)
        assert total + frontier.problem.fixed_ns == plan.latency_ns or frontier.problem.fixed_ns == 0
        losses = {row.choice: row.loss_before - row.loss_after for row in table}
        gain = sum(losses[width.key] for width in plan.widths if width.channels < width.full)
        assert plan.objective == pytest.approx(gain)


def test_rows_of_a_group_keep_more_the_wider_they_are(narrowed: tuple[Job, Result]) -> None:
    job, _ = narrowed
    session = open_session(job)
    table = importance_table(session)
    for one in session.narrowed:
        row = table.get(one.key)
        assert row is not None and len(row.kept) == one.channels < one.group.channels
        assert set(row.kept) <= set(range(one.group.channels))


def test_joint_plans_merge_and_narrow(tmp_path: Path, quick_job: Any, recorder: Any) -> None:
    job = narrow_job(tmp_path, quick_job, method="joint", refine=2)
    job = replace(job, budget=Budget.parse("0.8"))
    result = whole_job(open_session(job), recorder)
    plan = read_plan(job.plan_file).plan
    assert any(width.channels < width.full for width in plan.widths)
    assert any(item.kind != Kind.KEEP for item in plan.items)
    assert result.manifest.compressed.parameters < result.manifest.original.parameters


def test_without_widths_nothing_is_narrowed(tmp_path: Path, quick_job: Any) -> None:
    session = open_session(narrow_job(tmp_path, quick_job, method="joint", method_settings={}))
    assert session.offered == session.narrowed == () and all(len(sizes) == 1 for sizes in session.sized.values())


def test_an_estimator_that_cannot_measure_widths_says_so_at_once(tmp_path: Path, quick_job: Any) -> None:
    job = narrow_job(tmp_path, quick_job, method="joint", estimator=Finetune())
    with pytest.raises(UsageError, match="does not measure widths") as caught:
        open_session(job)
    assert "--estimator fit" in str(caught.value.hint)


def test_a_plan_of_another_network_is_refused(narrowed: tuple[Job, Result], tmp_path: Path) -> None:
    job, _ = narrowed
    session, file = open_session(job), read_plan(job.plan_file)
    other = tuple(replace(width, full=width.full + 1) for width in file.plan.widths)
    with pytest.raises(TableError, match="narrows a channel group"):
        chosen(session, replace(file.plan, widths=other))
    write_plan(tmp_path / "plan.json", file)
    assert read_plan(tmp_path / "plan.json") == file
