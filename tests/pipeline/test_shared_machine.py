"""A profile that was filled while a machine was quiet, and an original timed while it is not; and the reverse."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.errors import Caution, InconclusiveError, TableError
from trt_layermerge.latency.anchored import scaled
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.pipeline.fidelity import MadeUpLosses
from trt_layermerge.pipeline.job_frontier import frontier_of
from trt_layermerge.pipeline.measuring import baseline_stage, known_baseline, profile_stage
from trt_layermerge.pipeline.session import Session, open_session
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.plan import Plan
from trt_layermerge.runtimes.base import BuildOptions, Model, Nanoseconds, Runtime

NETWORK_NS = 2_000_000
"""Of the original; about three quarters of it are its blocks."""


@dataclass
class Load:
    """What else a machine does.

    Attributes:
        factor: On all runs alike.
        stall_ns: For so long others have the only core, after every millisecond of ours.
        wild: Whether they have it only every other time, by chance, for twice as long.
    """

    factor: float = 1.0
    stall_ns: float = 0.0
    wild: bool = False
    worked_ns: float = 0.0

    def runs(self, run_ns: float, repeats: int) -> Nanoseconds:
        """Latencies of so many runs, each of ``run_ns`` on a quiet machine."""
        ends = self.worked_ns + run_ns * np.arange(repeats + 1)
        self.worked_ns = float(ends[-1])
        slices = np.diff(ends // 1e6)
        turns = np.random.default_rng(int(ends[-1])).choice([0, 2], repeats) if self.wild else 1
        return np.asarray(self.factor * run_ns + self.stall_ns * slices * turns, np.int64)


QUIET, TAKEN, THROTTLED = Load(), Load(stall_ns=2e6), Load(factor=3.0)


def shared(runtime: Runtime, load: Load) -> Runtime:
    """A runtime by another clock: the original takes 2 ms, and blocks 0.2 to 0.4, where nothing else is done."""
    found: Any = copy(runtime)

    def build(model: Model, options: BuildOptions, shapes: Any = None) -> Any:
        engine: Any = runtime.build(model, options, shapes)
        run_ns = _block_ns(model.graph.name) if isinstance(model, onnx.ModelProto) else NETWORK_NS
        engine.time = lambda repeats: load.runs(run_ns, repeats)
        return engine

    found.build = build
    return cast(Runtime, found)


def _block_ns(key: str) -> float:
    """Any figure of its own for each."""
    return 2e5 + 2e5 * (sum(key.encode()) % 101) / 100


Machine = Callable[..., Session]


@pytest.fixture
def machine(tmp_path: Path, quick_job: Any) -> Machine:
    """A job on such a machine; each call opens it again, with what was measured before."""

    def opened(load: Load, folder: str = "job", **changes: Any) -> Session:
        settings = {"budget": Budget.parse("1.25x"), "policy": MeasurementPolicy(max_seconds=0.1), "recipe": None}
        session = open_session(quick_job(tmp_path / folder, **(settings | changes)))
        return replace(session, runtime=shared(session.runtime, load))

    return opened


def planned(session: Session, recorder: Any) -> Plan:
    changed = [choice for choice in session.choices if choice.kind is not Kind.KEEP]
    losses = MadeUpLosses(session.job.importance_file, {choice.key: choice.layers for choice in changed})
    profile_stage(session, recorder)
    baseline = baseline_stage(session, recorder)
    return frontier_of(session, baseline, losses).best(session.job.budget.nanoseconds(baseline.median_ns))


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_the_plan_is_that_of_the_quiet_machine(machine: Machine, recorder: Any, runtime: str) -> None:
    """Load triples between profile and original, by slices of the core, or evenly."""
    quiet = planned(machine(QUIET, "quiet", runtime=runtime), recorder)
    assert 1.25 <= quiet.speedup < 1.6 and quiet.original_ns == pytest.approx(NETWORK_NS, rel=0.01)
    for number, load in enumerate((TAKEN, THROTTLED)):
        profile_stage(machine(QUIET, str(number), runtime=runtime), recorder)
        with pytest.warns(Caution, match=r"takes (3\.\d|2\.\d) times as long now as when profile"):
            loaded = planned(machine(load, str(number), runtime=runtime), recorder)
        assert loaded.keys == quiet.keys and loaded.original_ns == pytest.approx(NETWORK_NS, rel=0.1)


def test_load_that_comes_and_goes_is_refused(machine: Machine, recorder: Any) -> None:
    profile_stage(machine(QUIET), recorder)
    session = machine(Load(stall_ns=2e6, wild=True))
    with pytest.raises(InconclusiveError, match=r"may be anything from .* at the speed of profile .*jsonl"):
        planned(session, recorder)
    assert not session.job.baseline_file.exists(), "the next run times it again"


def test_a_profile_of_a_slower_machine_is_refused(machine: Machine, recorder: Any) -> None:
    profile_stage(machine(THROTTLED), recorder)
    with pytest.raises(InconclusiveError, match="was filled while the machine was slower") as caught:
        planned(machine(QUIET), recorder)
    assert "--profiles" in str(caught.value.hint)


def test_a_profile_that_was_filled_beside_other_work_changes_no_plan(machine: Machine, recorder: Any) -> None:
    quiet = planned(machine(QUIET, "quiet"), recorder)
    profile_stage(machine(TAKEN), recorder)
    later = planned(machine(QUIET), recorder)
    assert later.keys == quiet.keys and later.original_ns == pytest.approx(NETWORK_NS, rel=0.01)


@pytest.mark.parametrize("kept", [True, False])
def test_rows_of_another_day_are_refused(machine: Machine, recorder: Any, kept: bool) -> None:
    """Layers as they are, or what takes their places, were measured while everything took three times as long."""
    session = machine(QUIET)
    profile_stage(session, recorder)
    layers = {
        one for choice in session.choices if choice.kind is Kind.KEEP for one in session.sized[choice][0].signatures
    }
    for row in list(session.profile):
        if row.timing is not None and (row.signature in layers) == kept:
            session.profile.add(replace(row, timing=scaled(row.timing, 3.0 if kept else 1 / 3)))
    with pytest.raises(InconclusiveError, match="times as long as their rows"):
        planned(machine(QUIET), recorder)


def test_a_kept_baseline_is_of_the_rows_that_it_was_timed_with(machine: Machine, recorder: Any) -> None:
    session = machine(QUIET)
    planned(session, recorder)
    assert known_baseline(session) is not None
    for row in list(session.profile):
        if row.timing is not None:
            session.profile.add(replace(row, timing=scaled(row.timing, 1.3)))
    session = machine(QUIET)
    assert known_baseline(session) is None
    again = baseline_stage(session, recorder)
    assert again.median_ns == pytest.approx(1.3 * NETWORK_NS, rel=0.01) and known_baseline(session) == again


def test_a_baseline_that_does_not_say_what_it_was_timed_with_is_timed_again(machine: Machine, recorder: Any) -> None:
    session = machine(QUIET)
    planned(session, recorder)
    fields = json.loads(session.job.baseline_file.read_bytes())
    del fields["anchors"]
    session.job.baseline_file.write_text(json.dumps(fields))
    assert known_baseline(session) is None
    session.job.baseline_file.write_text(json.dumps(fields | {"anchors": {"one": "long"}}))
    with pytest.raises(TableError, match="anchors that are no latencies"):
        known_baseline(session)
