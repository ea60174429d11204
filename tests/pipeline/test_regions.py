"""Regions from profile to engine: timed, planned, fitted, delivered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
import torch

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.gap_signature import parse_signature
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.latency.profile import Profile, ProfileRow
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.sequential import execute
from trt_layermerge.pipeline import measuring
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_frontier import frontier_of, kept_ns, latency_ns, most_saved_ns, worthwhile
from trt_layermerge.pipeline.measuring import profile_stage
from trt_layermerge.pipeline.session import Session, open_session
from trt_layermerge.pipeline.solving import chosen, sized_in
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.plan import read_plan

MODEL, MIXED = (str(Path(__file__).parent / "assets" / name) for name in ("gated.py", "mixed.py"))


@pytest.fixture(scope="module")
def job(quick_job: Any, tmp_path_factory: pytest.TempPathFactory) -> Job:
    made: Job = quick_job(tmp_path_factory.mktemp("regions"), model=MODEL, limits=Limits(max_kernel=5, max_layers=6))
    return made


@pytest.fixture(scope="module")
def profiled(job: Job) -> Session:
    session = open_session(job)
    profile_stage(session, Silent())
    return session


class Silent:
    def stage(self, name: str) -> None:
        pass

    def progress(self, done: int, total: int, label: str, *, share: float | None = None) -> None:
        pass


def regional(session: Session) -> list[Choice]:
    return [choice for choice in session.choices if choice.block.region is not None]


def test_gaps_are_timed_and_read_back(profiled: Session) -> None:
    assert profiled.gap_signatures
    rows = {row.signature.key: row for row in Profile.read(profiled.profile.path)}
    for signature in profiled.gap_signatures.values():
        assert parse_signature(signature.key) == signature
        assert rows[signature.key].status != "failed", rows[signature.key].reason


def test_what_a_region_saves_is_all_of_it(profiled: Session) -> None:
    """With latencies that say so, a region pays by its gaps alone, and by no more than they take."""
    choice = next(one for one in regional(profiled) if one.kind is Kind.FIT)
    assert choice.block.region is not None
    region, kept = profiled.network.regions[choice.block.region], kept_ns(profiled)
    layers = sum(kept[layer] for layer in region.layers)
    (number, *others) = region.gaps
    inside = sum(kept[layer] for layer in profiled.network.gaps[number].layers)
    for one in others:
        set_ns(profiled, profiled.gap_signatures[one], 0)
    (operation,) = profiled.sized[choice][0].signatures
    set_ns(profiled, operation, layers + 1000)
    for rest, pays in ((999, False), (1001, True)):
        set_ns(profiled, profiled.gap_signatures[number], inside + rest)
        assert (choice in worthwhile(profiled)) is pays
    assert latency_ns(profiled, choice) == layers + 1000


@pytest.mark.parametrize("original_ns", [1_000, 30_000, 10**6, 10**9])
def test_no_plan_takes_less_than_what_it_executes(profiled: Session, original_ns: int) -> None:
    """However much gaps seem to take by themselves: they are part of the whole, and plans take shares of it."""
    session, kept = profiled, kept_ns(profiled)
    for number, signature in session.gap_signatures.items():
        set_ns(session, signature, 50_000 + sum(kept[layer] for layer in session.network.gaps[number].layers))
    most = most_saved_ns(session, kept)
    assert 0 < most <= 50_000 * len(session.network.gaps)
    share = min(1.0, original_ns / (sum(kept.values()) + most))
    frontier = frontier_of(session, Timing.of([float(original_ns)] * 6), None)
    assert not frontier.impossible
    for number in range(len(frontier)):
        plan = frontier.plan(number)
        executed = sum(latency_ns(session, one.choice) or 0 for one in sized_in(session, plan))
        assert plan.latency_ns >= share * executed - len(plan.items) - len(session.network.gaps)  # rounding


def set_ns(session: Session, signature: Any, latency: int) -> None:
    session.profile.add(ProfileRow(signature, Timing.of([float(latency)] * 6)))


def set_original_ns(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as its layers, each a millisecond: by the clock it would be none of this profile's network."""
    layers = sum(map(len, session.network.chains))
    monkeypatch.setattr(measuring, "anchored", lambda *_: (Timing.of([layers * 1e6] * 6), 1.0))


def test_the_whole_job_delivers_a_region_that_was_replaced(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With latencies by which nothing but regions meets the budget."""
    session = open_session(
        replace(job, output=tmp_path / "out", profiles=tmp_path / "profiles", budget=Budget.parse("0.5"))
    )
    for choice in session.choices:
        for signature in session.sized[choice][0].signatures:
            set_ns(session, signature, 1_000 if choice.block.region is not None else 1_000_000)
    for number, signature in session.gap_signatures.items():
        set_ns(session, signature, 1_000_000 * len(session.network.gaps[number].layers))
    set_original_ns(session, monkeypatch)
    result = whole_job(session, Silent())
    items = read_plan(session.job.plan_file).plan.items
    assert any(item.end_chain is not None for item in items)
    assert result.manifest.proof.engine < 1e-3
    executed = chosen(session, read_plan(session.job.plan_file).plan).choices
    assert [choice.key for choice in executed] == [one.key for one in items]


def test_the_whole_job_delivers_a_region_that_was_merged(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With latencies by which nothing but the merge of the two depthwise convolutions pays."""
    job = replace(job, model=MIXED, output=tmp_path / "out", profiles=tmp_path / "profiles")
    session = open_session(replace(job, budget=Budget.parse("0.9")))
    merge = next(one for one in regional(session) if one.kind is Kind.MERGE and one.geometry.groups == 8)
    for choice in sorted(session.choices, key=lambda choice: choice.kind is Kind.KEEP):  # a fit may be a layer again
        for signature in session.sized[choice][0].signatures:
            set_ns(session, signature, 1_000_000 if choice.kind is Kind.KEEP else 9_000_000)
    for signature in session.sized[merge][0].signatures:
        set_ns(session, signature, 1_000)
    for number, signature in session.gap_signatures.items():
        set_ns(session, signature, 1_000_000 * len(session.network.gaps[number].layers))
    set_original_ns(session, monkeypatch)
    proof = whole_job(session, Silent()).manifest.proof
    assert merge.key in [item.key for item in read_plan(session.job.plan_file).plan.items]
    assert proof.merged_blocks == 1 and proof.worst_block < 1e-10 and proof.engine < 1e-4


def test_random_plans_with_regions_are_what_their_onnx_computes(profiled: Session, tmp_path: Path) -> None:
    batch = (torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1)),)
    for number, choice in enumerate(regional(profiled)[::3]):
        merged = fold_norms(execute(profiled.network, [choice], [batch]).merged)
        assert f"merged_region_{choice.block.region}" in dict(merged.named_modules()) or choice.kind is Kind.IDENTITY
        path = tmp_path / f"{number}.onnx"
        export_onnx(merged, profiled.network.inputs, path)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"input": batch[0].numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), merged(*batch), rtol=1e-4, atol=1e-4)
