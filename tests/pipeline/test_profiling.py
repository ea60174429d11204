"""One table for several networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.cost import Setting, signatures
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.latency.profile import Profile
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.profiling import open_sessions, profile_networks, profiling_plan, wanted_signatures
from trt_layermerge.pipeline.session import for_method
from trt_layermerge.planning.methods.registry import method_named

COMMITTED = sorted((Path(__file__).parents[2] / "profiles").glob("*/*.jsonl"))
MODEL = (Path(__file__).parent / "assets" / "model.py").read_text()


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str]:
    """Two networks that have most of their operations in common."""
    for name, text in {"first.py": MODEL, "second.py": MODEL.replace("stride=2", "stride=4")}.items():
        (tmp_path / name).write_text(text)
    return str(tmp_path / "first.py"), str(tmp_path / "second.py")


@pytest.fixture
def job(tmp_path: Path, quick_job: Any) -> Job:
    """Of no model in particular, without data, on a machine that is always the same."""
    job: Job = quick_job(tmp_path, task=None, recipe=None, runtime="estimate:rtx-2080-ti")
    return job


def test_what_two_networks_share_is_measured_once(job: Job, models: tuple[str, str], recorder: Any) -> None:
    sessions = open_sessions(job, models)
    distinct = [{one.key for one in wanted_signatures(session) if not one.empty} for session in sessions]
    plan = profiling_plan(sessions)
    assert [one.model for one in plan.networks] == list(models)
    assert [one.operations for one in plan.networks] == [one.missing for one in plan.networks] == [*map(len, distinct)]
    assert plan.missing == len(distinct[0] | distinct[1]) < sum(map(len, distinct)) and plan.seconds > 0
    assert profile_networks(sessions, recorder) == plan.missing
    assert {row.signature.key for row in sessions[0].profile} == distinct[0] | distinct[1]
    assert recorder.steps[-1] == ("profile", plan.missing, plan.missing)


def test_a_second_network_measures_what_is_new_and_a_repeat_nothing(
    job: Job, models: tuple[str, str], recorder: Any
) -> None:
    first = profile_networks(open_sessions(job, models[:1]), recorder)
    both = open_sessions(job, models)
    new = profiling_plan(both)
    assert [one.missing for one in new.networks] == [0, new.missing] and 0 < new.missing < first
    assert profile_networks(both, recorder) == new.missing
    for session in both:
        session.job.original_onnx.unlink(missing_ok=True)
    again = open_sessions(job, models)
    assert profile_networks(again, recorder) == 0 and profiling_plan(again).missing == 0
    assert not any(session.job.original_onnx.exists() for session in again), "nothing to measure, nothing to export"


def test_when_the_time_is_up_the_rest_is_left(job: Job, models: tuple[str, str], recorder: Any) -> None:
    sessions = open_sessions(job, models)
    whole = profiling_plan(sessions).missing
    assert profile_networks(sessions, recorder, max_seconds=0.0) == 0 and not sessions[0].profile.path.exists()
    assert profile_networks(sessions, recorder, max_seconds=1e6) == whole


def test_a_gap_is_written_from_the_network_that_has_it(job: Job, tmp_path: Path, recorder: Any) -> None:
    """Of the second network alone; the first has no region."""
    (tmp_path / "plain.py").write_text(MODEL)
    (tmp_path / "gated.py").write_text((Path(__file__).parent / "assets" / "gated.py").read_text())
    names = [str(tmp_path / name) for name in ("plain.py", "gated.py")]
    sessions = open_sessions(replace(job, limits=replace(job.limits, max_layers=12)), names)
    gaps = [one for session in sessions for one in session.gap_signatures.values()]
    assert gaps and not sessions[0].gap_signatures
    profile_networks(sessions, recorder)
    rows = [sessions[0].profile.get(one) for one in gaps]
    assert all(row is not None and row.timing is not None for row in rows)


@pytest.mark.skipif(not COMMITTED, reason="no profile is committed; make profiles makes one")
def test_committed_profiles_hold_an_example_whole() -> None:
    root = Path(__file__).parents[2]
    examples = root / "examples" / "fashion_mnist"
    networks = [load_network(f"{examples / spec}") for spec in ("vgg.py:vgg16", "model.py:resnet20")]
    for path in COMMITTED:
        profile = Profile.read(path)
        device = profile.key.device
        assert Profile.path_for(root / "profiles", profile.key) == path and not device.simulated
        assert "family" in device.name or "part" in device.name or device.driver, "rows could be lent to another CPU"
        held = {row.signature.key for row in profile if row.status != "failed"}
        assert any(_rows_of(network, device.precision) <= held for network in networks), path


def _rows_of(network: Network, precision: str) -> set[str]:
    """The keys of all rows that plans of a network may ask for."""
    choices = for_method(choices_of(network, Limits()), method_named("joint"))
    wanted = (one for choice in choices for one in signatures(network, choice, Setting(8, precision)))
    return {one.key for one in wanted if not one.empty}
