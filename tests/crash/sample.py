"""A minute of kills, and two commands at once; prints what came of it as JSON."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

from tests.crash.killing import COMMANDS, AtWrite, SmallFiles, Trouble, _run, fresh, left, reference, survive, warm
from trt_layermerge.locks import exclusive

COMMAND = "compress"


def begun(folder: Path, command: str, name: str) -> int:
    """A command that runs beside; its process. Its messages are in ``NAME.log``."""
    if (child := os.fork()) == 0:
        os.closerange(3, 1000)  # or it would hold, itself, the lock that it waits for
        arguments = COMMANDS[command](folder)
        COMMANDS[command] = lambda _: arguments
        os._exit(_run(command, folder.with_name(name), None, os.open(os.devnull, os.O_WRONLY)))
    return child


def ended(child: int) -> int:
    """Its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _main() -> dict[str, Any]:
    folder = Path(sys.argv[1]).resolve() / "run"
    warm(folder)
    whole, tally = reference(COMMAND, folder)
    rng, points = Random(0 if os.environ.get("CI") else None), len(tally.points)
    kills: list[list[Trouble]] = [[AtWrite(rng.randrange(1, points + 1))] for _ in range(2)]
    fsyncs = [point for point, kind in enumerate(tally.points, 1) if kind == "s"]
    kills += [[AtWrite(rng.choice(fsyncs), torn=True)]]
    kills += [[AtWrite(rng.randrange(1, 9)) for _ in range(6)]]  # again and again, each soon after it went on
    failures: list[list[Trouble]] = [[AtWrite(rng.randrange(1, points + 1), error=errno.ENOSPC)]]
    failures += [[SmallFiles(3000)], [AtWrite(rng.randrange(1, points + 1), error=errno.EROFS)]]
    came = [survive(COMMAND, folder, one, whole) for one in kills]
    failed = [survive(COMMAND, folder, one, whole) for one in failures]
    found: dict[str, Any] = {
        "tried": sum(map(len, kills)),
        "killed": sum(hit for hit, _ in came),
        "faults": [fault for _, fault in came if fault],
        "failed": sum(map(len, failures)),
        "failures": [fault for _, fault in failed if fault],
    }
    return found | _two_at_once(folder, whole) | _backwards(folder, whole)


def _two_at_once(folder: Path, whole: dict[str, bytes]) -> dict[str, Any]:
    fresh(folder)
    log = folder.with_name("other.log")
    with exclusive(folder / "out"):
        refused = ended(begun(folder, COMMAND, "other"))
        said = log.read_text()
    (profile,) = [folder / name for name in whole if name.startswith("profiles")]
    with exclusive(profile.parent):
        child = begun(folder, "profile", "other")
        while "waiting for" not in log.read_text() and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.05)
        waits = not profile.exists()
    code = ended(child)
    fresh(folder)
    both = [begun(folder, "profile", name) for name in ("one", "other")]
    return {
        "refused_on_one_output": refused,
        "said_on_one_output": said,
        "waits_for_one_profile": waits,
        "codes_on_one_profile": [code, *map(ended, both)],
        "same_on_one_profile": left(folder)[str(profile.relative_to(folder))] in whole.values(),
    }


def _backwards(folder: Path, whole: dict[str, bytes]) -> dict[str, Any]:
    now = iter(range(10**9, 0, -3600))
    time.time, time.time_ns = lambda: float(next(now)), lambda: next(now) * 10**9
    return {"same_with_a_clock_going_backwards": reference(COMMAND, folder)[0] == whole}


if __name__ == "__main__":
    print(json.dumps(_main()))
