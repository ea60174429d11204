"""How a fleet's time falls with its workers: rows that sleep for a known time, on one machine.

A row costs no computing, so ten workers on two cores stand for ten machines. What is timed begins when the last worker
has begun its first row, for starting processes is no matter of how many there are: the work done from then on, by how
many workers did it in that time. 1 is a time that falls as 1/n; what is below is waiting, for the next rows and, at the
end, for the last one. The exit code is 1 where it is below 0.85.

    python benchmarks/fleet_scaling.py [--workers 1 2 5 10] [--seconds 60]
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trt_layermerge.fleet.fleet import Fleet
from trt_layermerge.fleet.work import Work
from trt_layermerge.latency.policy import MeasurementPolicy

ENOUGH = 0.85


@dataclass(frozen=True)
class Slept:
    """A row: which process slept, and when, in seconds of the machine's clock."""

    worker: int
    began: float
    ended: float


def open_sleep(setting: None) -> Callable[[Sequence[float]], list[Slept]]:
    def measured(seconds: Sequence[float]) -> list[Slept]:
        rows = []
        for one in seconds:
            began = time.time()
            time.sleep(one)
            rows.append(Slept(os.getpid(), began, time.time()))
        return rows

    return measured


def lost(seconds: float, reason: str) -> Slept:
    raise SystemExit(reason)


def share(rows: Sequence[Slept], workers: int) -> tuple[float, float]:
    """From when all are at work: how long it took, and the share of the workers' time that was work."""
    first: dict[int, float] = {}
    for row in rows:
        first[row.worker] = min(row.began, first.get(row.worker, row.began))
    assert len(first) == workers, f"{len(first)} of {workers} workers took part"
    begin, end = max(first.values()), max(row.ended for row in rows)
    worked = sum(max(0.0, row.ended - max(row.began, begin)) for row in rows)
    return end - begin, worked / (workers * (end - begin))


def main() -> None:
    import fleet_scaling  # this file, under the name that workers find it by

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--seconds", type=float, default=60.0, help="of sleep, all rows together")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    draw = random.Random(0)
    seconds = [draw.uniform(0.05, 0.15) for _ in range(round(10 * given.seconds))]
    work = Work(fleet_scaling.open_sleep, None, "core", MeasurementPolicy.group)
    worst = 1.0
    for workers in given.workers:
        began = time.time()
        rows = list(Fleet(None, workers).results(work, seconds, lost))
        assert len(rows) == len(seconds)
        took, used = share(rows, workers)
        worst = min(worst, used)
        whole = time.time() - began
        print(
            f"{workers:>3} workers: {len(rows)} rows; {took:6.2f} s from when all were there, {used:.3f} of it work; "
            f"{whole:.1f} s with starting and ending",
            flush=True,
        )
    sys.exit(worst < ENOUGH)


if __name__ == "__main__":
    main()
