"""The papers' methods, from their choices to a delivered engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.errors import UsageError
from trt_layermerge.importance.estimators.gates import Gates
from trt_layermerge.importance.estimators.product import Product
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.latency.profile import ProfileRow
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.pipeline import measuring
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_frontier import worthwhile
from trt_layermerge.pipeline.measuring import importance_table
from trt_layermerge.pipeline.session import Session, for_method, open_session
from trt_layermerge.pipeline.solving import chosen, plan_stage
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.methods.registry import method_named
from trt_layermerge.planning.plan import read_plan
from trt_layermerge.training.recipe import Recipe

OPERATION = 100_000  # ns, whatever it is
ALL = Limits(max_kernel=11, max_layers=4)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Latencies that are the same everywhere, and importances: of a choice that is not named, a loss of 2 after 1.

    Without ``losses`` there are no importances yet.
    """

    def simulate(job: Job, latencies: dict[str, int], losses: dict[str, float] | None) -> Session:
        session = open_session(job)
        for signature, name in {
            s: choice.key for choice in session.choices for s in session.sized[choice][0].signatures
        }.items():
            latency = latencies.get(name, OPERATION)
            timing = Timing.of([0.99 * latency, *[latency] * 4, 1.01 * latency])
            session.profile.add(ProfileRow(signature, timing, simulated=True))
        table = importance_table(session)
        for choice in session.choices:
            if choice.kind is not Kind.KEEP and losses is not None:
                table.add(ImportanceRow(choice.key, 1.0, losses.get(choice.key, 2.0), 0.5, 0.5, None, 0.0))
        monkeypatch.setattr(measuring, "anchored", lambda *_: (Timing.of([5.0 * OPERATION] * 6), 1.0))
        return session

    return simulate


def key(session: Session, start: int, end: int) -> str:
    (choice,) = (one for one in session.choices if (one.block.start, one.block.end) == (start, end))
    return choice.key


def choices(session: Session, method: str) -> tuple[Choice, ...]:
    return for_method(choices_of(session.network, session.job.limits), method_named(method))


def test_what_the_papers_know(tmp_path: Path, quick_job: Any) -> None:
    session = open_session(quick_job(tmp_path, limits=ALL))
    depth, layer_only = choices(session, "depth"), choices(session, "layer-only")
    for found in (depth, layer_only):
        assert {choice.block.end for choice in found if choice.kind is Kind.KEEP} == {1, 2, 3, 4}
    merges = [choice for choice in depth if choice.kind is not Kind.KEEP]
    assert {(one.block.start, one.block.end) for one in merges} == {(0, 3), (0, 4), (1, 3), (1, 4)}
    assert all(choice.kind is Kind.MERGE and len(choice.kept) == len(choice.block) for choice in merges)
    dropped = [choice for choice in layer_only if choice.kind is not Kind.KEEP]
    assert {(one.block.start, one.block.end, one.kind) for one in dropped} == {
        (1, 2, Kind.IDENTITY),
        (2, 3, Kind.IDENTITY),
    }


def test_an_interval_of_depth_may_run_in_parts(tmp_path: Path, quick_job: Any, recorder: Any, simulated: Any) -> None:
    """All four layers without activations, which is worth more than three; merged, the four are slow, the three not."""
    job = quick_job(tmp_path, method="depth", limits=ALL, recipe=None, budget=Budget.parse("0.6"))
    four, three, last = (key(open_session(job), *block) for block in ((0, 4), (0, 3), (1, 4)))
    session = simulated(job, {four: 390_000, last: 150_000}, {four: 1.1, three: 9.0, last: 9.0})
    file = plan_stage(session, recorder)
    (item,) = file.plan.items
    assert (
        item.breaks == (3,)
        and file.plan.keys == (three, key(open_session(job), 3, 4))
        and item.low_ns < item.latency_ns
    )
    assert [choice.key for choice in chosen(session, file.plan).choices] == list(file.plan.keys)
    result = whole_job(open_session(job), recorder)
    assert result.manifest.compressed.layers == 2 and result.manifest.proof.merged_blocks == 1
    assert 0 <= result.manifest.probability <= 1


def test_layer_only_drops_layers(tmp_path: Path, quick_job: Any, recorder: Any, simulated: Any) -> None:
    job = quick_job(tmp_path, method="layer-only", recipe=None, budget=Budget.parse("0.85"))
    simulated(job, {}, {key_of_dropped(open_session(job), 2): 1.1})
    result = whole_job(open_session(job), recorder)
    assert [item["kind"] for item in result.manifest.plan["items"]].count("identity") >= 1
    assert result.manifest.compressed.layers < 4 and result.manifest.proof.merged_blocks == 0


def test_decoupling_trains_first_and_merges_without_loss(
    tmp_path: Path, quick_job: Any, recorder: Any, simulated: Any
) -> None:
    recipe = Recipe(epochs=2, decouple=0.5, distillation=0.5, checkpoint_seconds=0)
    job = quick_job(tmp_path, method="depth", limits=ALL, recipe=recipe, budget=Budget.parse("0.6"))
    three, last = (key(open_session(job), *block) for block in ((0, 3), (1, 4)))
    simulated(job, {last: 150_000}, {three: 1.1, last: 9.0})
    result = whole_job(open_session(job), recorder)
    assert recorder.stages.index("fine-tune") < recorder.stages.index("merge")
    assert recorder.steps.count(("fine-tune", 32, 32)) == 1
    proof = result.manifest.proof
    assert proof.merged_blocks == 1 and 0 < proof.merge_end_to_end <= 1e-4
    assert result.manifest.compressed.layers == 2 and result.manifest.compressed.accuracy > 0.9
    again = whole_job(open_session(job), recorder)
    assert again.manifest.compressed.accuracy == result.manifest.compressed.accuracy
    assert recorder.steps.count(("fine-tune", 0, 32)) == 1


def test_gates_choose_and_decoupling_carries_out(tmp_path: Path, quick_job: Any, recorder: Any, simulated: Any) -> None:
    """ELC from end to end: what gates say decides the plan, under latencies, and the plan merges without loss."""
    job = quick_job(
        tmp_path,
        method="depth",
        estimator=Gates(penalty=0.5, epochs=2),
        limits=ALL,
        recipe=Recipe(epochs=2, decouple=0.5, distillation=0.5, checkpoint_seconds=0),
        budget=Budget.parse("0.6"),
    )
    simulated(job, {}, None)
    result = whole_job(open_session(job), recorder)
    session = open_session(job)
    rows, plan = {row.choice: row for row in importance_table(session)}, read_plan(job.plan_file).plan
    assert rows.keys() == {choice.key for choice in worthwhile(session) if choice.kind is not Kind.KEEP}
    lost = {name: row.loss_after - row.loss_before for name, row in rows.items()}
    merged = [name for name in plan.keys if name in rows]
    assert merged and plan.objective == pytest.approx(-sum(lost[name] for name in merged), abs=1e-9)
    assert result.manifest.proof.merged_blocks == 1 and 0 < result.manifest.proof.merge_end_to_end <= 1e-4
    assert result.manifest.compressed.layers < 4 and result.manifest.compressed.accuracy > 0.9
    assert [total for stage, _, total in recorder.steps if stage == "importance"][:33] == [32] * 33
    told = len(recorder.steps)
    assert whole_job(open_session(job), recorder).manifest.plan == result.manifest.plan
    assert "importance" not in {stage for stage, *_ in recorder.steps[told:]}


def test_what_an_estimator_cannot_measure_is_said_before_anything_is(tmp_path: Path, quick_job: Any) -> None:
    for method, estimator in (("layermerge", Gates()), ("joint", Gates()), ("joint", Product())):
        with pytest.raises(UsageError, match=f"the estimator {estimator.name} cannot measure") as caught:
            open_session(quick_job(tmp_path, method=method, estimator=estimator))
        assert "--method" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_fits_cannot_be_decoupled(tmp_path: Path, quick_job: Any) -> None:
    with pytest.raises(UsageError, match="method joint plans fits"):
        open_session(quick_job(tmp_path, method="joint", recipe=Recipe(decouple=0.5)))


def key_of_dropped(session: Session, layer: int) -> str:
    (choice,) = (one for one in session.choices if one.kind is Kind.IDENTITY and one.block.end == layer)
    return choice.key


def test_a_candidate_carries_its_interval_and_its_kernel(
    tmp_path: Path, quick_job: Any, recorder: Any, simulated: Any
) -> None:
    session = simulated(quick_job(tmp_path, budget=Budget.parse("1")), {}, {})
    plan = plan_stage(session, recorder).plan
    for item in plan.items:
        assert item.low_ns <= item.latency_ns <= item.high_ns and item.depthwise is False
        assert item.kernel == (0 if item.kind == "identity" else item.kernel) and item.kernel is not None


def test_a_sure_plan_is_another_one(tmp_path: Path, quick_job: Any, recorder: Any, simulated: Any) -> None:
    """Every layer kept takes just what the original does, and is as sure to exceed that as not."""
    job = quick_job(tmp_path, method="depth", budget=Budget.parse("1"), confidence=0.95)
    session = simulated(job, {}, {})
    assert any(item.kind == "merge" for item in plan_stage(session, recorder).plan.items)
