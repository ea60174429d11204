"""Measuring for one budget: the plan is that of a whole profile, with fewer rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.errors import InfeasibleBudgetError, TableError
from trt_layermerge.latency.profile import Profile, ProfileRow
from trt_layermerge.pipeline import budgeted_profiling
from trt_layermerge.pipeline.budgeted_profiling import BudgetedProfile, profile_for_budget
from trt_layermerge.pipeline.estimated_prior import estimated_prior
from trt_layermerge.pipeline.fidelity import MadeUpLosses
from trt_layermerge.pipeline.job_frontier import frontier_of
from trt_layermerge.pipeline.measuring import baseline_stage, profile_stage
from trt_layermerge.pipeline.profiling import measure_rows, wanted_signatures
from trt_layermerge.pipeline.session import Session, open_session
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.plan import Plan
from trt_layermerge.progress import silent

VGG = f"{Path(__file__).parents[2] / 'examples' / 'fashion_mnist' / 'vgg.py'}:vgg16"


Fresh = Callable[..., Session]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, quick_job: Any) -> Session:
    """A network of 13 layers on a device that is always the same; no data. Loaded and exported once."""
    folder = tmp_path_factory.mktemp("vgg")
    limits, runtime = Limits(), "estimate:rtx-2080-ti"
    session = open_session(quick_job(folder, model=VGG, task=None, recipe=None, runtime=runtime, limits=limits))
    assert session.original.exists()
    measure_rows([session], session.gap_signatures.values(), silent)  # each is exported, which takes long
    return session


@pytest.fixture
def fresh(loaded: Session, tmp_path: Path) -> Fresh:
    """The same with files of its own: a name for each folder."""

    def made(name: str = "job", budget: str = "0.6") -> Session:
        job = replace(loaded.job, output=tmp_path / name, budget=Budget.parse(budget))
        (tmp_path / name).mkdir(exist_ok=True)
        profile = Profile.open(tmp_path / name / "profile.jsonl", loaded.profile.key)
        for row in loaded.profile:
            profile.add(row)
        session = replace(loaded, job=job, profile=profile)
        session.__dict__["original"] = loaded.original
        return session

    return made


@pytest.fixture(scope="module")
def losses(loaded: Session) -> MadeUpLosses:
    changed = [choice for choice in loaded.choices if choice.kind is not Kind.KEEP]
    return MadeUpLosses(loaded.job.importance_file, {choice.key: choice.layers for choice in changed})


def whole(session: Session, losses: MadeUpLosses, recorder: Any) -> Plan:
    """The best plan of a whole profile."""
    profile_stage(session, recorder)
    baseline = baseline_stage(session, recorder)
    return frontier_of(session, baseline, losses).best(session.job.budget.nanoseconds(baseline.median_ns))


def check_counts(found: BudgetedProfile, session: Session) -> None:
    wanted = {one.key for one in wanted_signatures(session) if not one.empty}
    assert found.wanted == len(wanted)
    assert found.unmeasured == len(wanted - {row.signature.key for row in session.profile})


@pytest.mark.parametrize("budget", ["0.8", "0.6", "0.4"])
def test_the_plan_is_that_of_a_whole_profile(fresh: Fresh, losses: MadeUpLosses, recorder: Any, budget: str) -> None:
    session = fresh(budget=budget)
    found = profile_for_budget(session, losses, recorder)
    check_counts(found, session)
    assert (
        found.settled
        and found.plan is not None
        and found.measured == len(session.profile) - len(session.gap_signatures)
    )
    assert found.measured <= 0.5 * found.wanted and found.saved_seconds > 0
    assert found.held == found.bounded, "an estimate is smooth"
    best = whole(session, losses, recorder)
    assert (found.plan.keys, found.plan.latency_ns) == (best.keys, best.latency_ns)


def test_solving_what_was_measured_gives_that_plan(fresh: Fresh, losses: MadeUpLosses, recorder: Any) -> None:
    session = fresh()
    found = profile_for_budget(session, losses, recorder)
    again = fresh()
    baseline = baseline_stage(again, recorder)
    assert found.plan == frontier_of(again, baseline, losses).best(session.job.budget.nanoseconds(baseline.median_ns))
    repeated = profile_for_budget(again, losses, recorder)
    assert (repeated.measured, repeated.settled, repeated.plan) == (0, True, found.plan)


def test_a_row_that_is_faster_than_its_bound_is_told(
    fresh: Fresh, losses: MadeUpLosses, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds that are no bounds: what is likely, above which half of all rows lie."""
    real = budgeted_profiling.bound_rows

    def optimistic(*about: Any) -> Any:
        return {key: replace(bound, low_ns=bound.likely_ns) for key, bound in real(*about).items()}

    monkeypatch.setattr(budgeted_profiling, "bound_rows", optimistic)
    tried = [profile_for_budget(fresh(text, text), losses, recorder) for text in ("0.4", "0.3", "0.25")]
    assert all(found.settled for found in tried)
    assert 0 < sum(found.held for found in tried) < sum(found.bounded for found in tried)


def test_when_the_time_is_up_nothing_is_settled(fresh: Fresh, losses: MadeUpLosses, recorder: Any) -> None:
    session = fresh()
    found = profile_for_budget(session, losses, recorder, max_seconds=0.0)
    check_counts(found, session)
    assert not found.settled and found.plan is None and found.measured == 0
    assert found.unmeasured == found.wanted - len(session.gap_signatures)


def test_a_budget_that_nothing_can_meet_is_refused_without_a_whole_profile(
    fresh: Fresh, losses: MadeUpLosses, recorder: Any
) -> None:
    session = fresh(budget="0.001ms")
    with pytest.raises(InfeasibleBudgetError):
        profile_for_budget(session, losses, recorder)
    assert len(session.profile) < len({one.key for one in wanted_signatures(session)})


def test_a_card_that_the_device_is_like_is_a_better_prior(fresh: Fresh, losses: MadeUpLosses, recorder: Any) -> None:
    session = fresh(budget="0.4")
    found = profile_for_budget(session, losses, recorder, estimated_prior("rtx-2080", session.job))
    alone = fresh("alone", "0.4")
    without = profile_for_budget(alone, losses, recorder)
    assert found.settled and found.plan is not None and without.plan is not None
    assert found.plan.keys == without.plan.keys and found.measured <= without.measured


def test_a_choice_without_importance_is_measured_where_it_may_pay(
    fresh: Fresh, losses: MadeUpLosses, recorder: Any
) -> None:
    """A table of a whole profile has no choices that are slower than keeping; it is as good as one of all."""
    session = fresh("whole")
    best = whole(session, losses, recorder)
    paying = {choice.key for choice in budgeted_profiling.worthwhile(session)}
    fewer = MadeUpLosses(losses.path, {key: count for key, count in losses.layers.items() if key in paying})
    assert len(fewer.layers) < len(losses.layers)
    found = profile_for_budget(fresh("fewer"), fewer, recorder)
    assert found.plan is not None and found.plan.keys == best.keys and found.unmeasured > 0
    lost = next(key for key in fewer.layers if "identity" in key or "fit 1x1" in key)
    less = MadeUpLosses(losses.path, {key: count for key, count in fewer.layers.items() if key != lost})
    with pytest.raises(TableError, match="no row for"):
        profile_for_budget(fresh("less"), less, recorder)


def test_what_failed_is_in_no_plan_and_not_tried_for_ever(fresh: Fresh, losses: MadeUpLosses, recorder: Any) -> None:
    session = fresh()
    first = profile_for_budget(session, losses, recorder)
    assert first.plan is not None
    kept = {one.key for c in session.choices if c.kind is Kind.KEEP for one in session.sized[c][0].signatures}
    used = (choice for choice in session.choices if choice.key in first.plan.keys)
    broken = [
        one for choice in used for one in session.sized[choice][0].signatures if one.key not in kept and not one.empty
    ]
    assert broken
    for one in broken:
        session.profile.add(ProfileRow(one, None, "failed", "no tactic"))
    found = profile_for_budget(session, losses, recorder)
    assert found.settled and found.plan is not None
    for choice in session.choices:
        assert choice.key not in found.plan.keys or not set(broken) & set(session.sized[choice][0].signatures)
