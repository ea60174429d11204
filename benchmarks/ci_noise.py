"""What ``compare`` says where nothing changed, and where one row did, while another process loads a core now and then.

First, two profiles of the same networks one after the other: every row that is called slower or faster is a false
alarm. Then, so many times, a profile in which one row takes 10 % longer: is that row called slower, and no other?
Another process of this script computes for 1 to 4 seconds, sleeps for 2 to 8, and so on.

    python benchmarks/ci_noise.py --tries 20

That takes about 20 minutes. With ``--folder`` and ``--max-minutes`` the same command goes on later.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from trt_layermerge.latency.measure import missing
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.profile import Profile
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.profiling import measure_rows, open_sessions, wanted_signatures
from trt_layermerge.pipeline.session import Session
from trt_layermerge.regression.profiles import ProfileComparison, compare_profiles
from trt_layermerge.runtimes.base import BuildOptions, Engine, Runtime

EXAMPLES = ("examples/fashion_mnist/model.py:resnet20", "examples/fashion_mnist/vgg.py:vgg16")
LOAD = "--load"
"""Asks this script to be the process that loads a core."""


class SlowedEngine:
    """An engine whose runs take so many times as long."""

    def __init__(self, engine: Engine, times: float) -> None:
        self._engine, self._times = engine, times

    def time(self, repeats: int) -> np.ndarray:
        return np.rint(self._engine.time(repeats) * self._times).astype(np.int64)


class SlowedRuntime:
    """A runtime in which one operation takes so many times as long."""

    def __init__(self, runtime: Runtime, key: str, times: float) -> None:
        self._runtime, self._key, self._times = runtime, key, times

    def __getattr__(self, name: str):
        return getattr(self._runtime, name)

    def build(self, model, options: BuildOptions, shapes=None):
        engine = self._runtime.build(model, options, shapes)
        return SlowedEngine(engine, self._times) if model.graph.name == self._key else engine


@contextmanager
def loaded_core(seed: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, __file__, LOAD, str(seed)])
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def load_core(seed: int) -> None:
    draw = random.Random(seed)
    while True:
        until = time.monotonic() + draw.uniform(1, 4)
        while time.monotonic() < until:
            sum(range(10_000))
        time.sleep(draw.uniform(2, 8))


class Measuring:
    """Profiles of some operations of networks, each in a file of its own that a later run goes on with."""

    def __init__(self, sessions: tuple[Session, ...], folder: Path, max_minutes: float | None) -> None:
        self._sessions, self._folder = sessions, folder
        self._until = None if max_minutes is None else time.monotonic() + 60 * max_minutes

    def profile(self, name: str, signatures, runtime: Runtime | None = None) -> Profile:
        """A profile of some operations, ended here where the time is up."""
        profile = Profile.open(self._folder / f"{name}.jsonl", self._sessions[0].profile.key)
        fresh = [replace(one, profile=profile, runtime=runtime or one.runtime) for one in self._sessions]
        for session, old in zip(fresh, self._sessions, strict=True):
            session.__dict__["original"] = old.original  # written and compared once
        left = None if self._until is None else self._until - time.monotonic()
        measure_rows(fresh, signatures, lambda *_, **__: None, left)
        if missing(signatures, profile, fresh[0].job.policy):
            raise SystemExit(f"the time is up amid {name}; the same command goes on")
        return profile


def told(found: ProfileComparison) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
    return f"{counts}; machine {found.factor.value:.3f}x; {len(found.degraded)} degraded"


def check_unchanged(baseline: Profile, again: Profile, tolerance: float) -> None:
    """Print what is claimed of two profiles of the same device."""
    found = compare_profiles(baseline, again, tolerance)
    rows, quiet = len(found.pairs), found.counts["same"] + found.counts["unclear"]
    print(f"unchanged: {quiet} of {rows} rows same or unclear ({quiet / rows:.1%}): {told(found)}", flush=True)
    for pair in found.pairs:
        if pair.verdict in ("slower", "faster"):
            low, high = pair.sure.interval
            print(f"    {pair.verdict} {pair.ratio.value:.3f}x ({low:.3f} to {high:.3f}): {pair.key}", flush=True)


def is_found(baseline: Profile, new: Profile, key: str, tolerance: float) -> bool:
    """Whether the row that was slowed, of a network's rows, is called slower; and print what is."""
    result = compare_profiles(baseline, new, tolerance)
    verdicts = {pair.key: pair for pair in result.pairs}
    others = sum(pair.verdict == "slower" for pair in result.pairs if pair.key != key)
    print(
        f"{verdicts[key].verdict:<8} {verdicts[key].ratio.value:.3f}x  {others} others slower; "
        f"{told(result)}; {key}: {verdicts[key].reason or ''}",
        flush=True,
    )
    return verdicts[key].verdict == "slower"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=4, help="profiles with a row that is slower")
    parser.add_argument("--slower", type=float, default=1.10, help="times as long as it takes")
    parser.add_argument("--tolerance", type=float, default=0.05, help="of compare")
    parser.add_argument("--interval", type=float, default=0.01, help="of profile: half of the 95 %% interval")
    parser.add_argument("--builds", type=int, default=3, help="of profile: engines of a row that take turns")
    parser.add_argument("--folder", type=Path, help="keep here what was measured, and go on with it")
    parser.add_argument("--max-minutes", type=float, help="begin nothing new after that")
    given = parser.parse_args()
    policy = replace(MeasurementPolicy(), relative_ci=given.interval, builds=given.builds, max_seconds=3.0)
    with TemporaryDirectory() as temporary, loaded_core(0):
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        job = Job(model="", output=folder / "out", profiles=folder / "none", recipe=None, policy=policy)
        sessions = open_sessions(job, EXAMPLES)
        measuring = Measuring(sessions, folder, given.max_minutes)
        signatures = [one for session in sessions for one in wanted_signatures(session) if not one.empty]
        baseline = measuring.profile("baseline", signatures)
        check_unchanged(baseline, measuring.profile("again", signatures), given.tolerance)
        own = [one for one in wanted_signatures(sessions[0]) if not one.empty]
        keys = sorted({one.key for one in own})
        slowed = random.Random(1).sample(keys, min(given.tries, len(keys)))
        found = 0
        for number, key in enumerate(slowed):
            runtime = SlowedRuntime(sessions[0].runtime, key, given.slower)
            new = measuring.profile(f"slowed-{number}", own, runtime)
            print(f"{number + 1:>3} ", end="")
            found += is_found(baseline, new, key, given.tolerance)
        print(f"slowed by {given.slower - 1:.0%}: found in {found} of {len(slowed)}")


if __name__ == "__main__":
    if sys.argv[1:2] == [LOAD]:
        load_core(int(sys.argv[2]))
    else:
        main()
