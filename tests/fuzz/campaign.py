"""Feeds mutated files to every reader: each returns, or raises an error of ours in one line, within bounds.

Inputs are numbered, and a number is all that makes one, given the valid files, which are kept beside the results. A
chunk of them runs in a fork of this process, limited in memory and time, so that a crash costs one input. What a chunk
found is a line in a file, and a campaign that was stopped goes on behind it.

Usage: ``python -m tests.fuzz.campaign FOLDER --inputs N [--chunk N] [--only FORMAT]``; ``--seed N`` tries one alone.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import json
import mmap
import os
import re
import resource
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.fuzz.bench import Bench
from tests.fuzz.formats import FORMATS, FileFormat
from tests.fuzz.mutation import mutate
from trt_layermerge.errors import LONGEST, LayerMergeError
from trt_layermerge.probe import _limit, _outcome

SECONDS, MEMORY = 60, 3 << 30
"""Limits of one input beyond what the process has; both are far above what the largest of these files needs."""

_STATE = struct.Struct("<qqqdqdq")


@dataclass
class Found:
    """What came of some inputs; it adds up."""

    inputs: int = 0
    read: int = 0
    crashed_apart: int = 0
    seconds: float = 0.0
    slowest: int = -1
    memory: float = 0.0
    largest: int = -1
    faults: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Found) -> None:
        self.inputs, self.read = self.inputs + other.inputs, self.read + other.read
        self.crashed_apart += other.crashed_apart
        if other.seconds >= self.seconds:
            self.seconds, self.slowest = other.seconds, other.slowest
        if other.memory >= self.memory:
            self.memory, self.largest = other.memory, other.largest
        self.faults += [(seed, what) for seed, what in other.faults]


def content_of(form: FileFormat, seed: int, samples: list[bytes]) -> bytes:
    """The input of a number; half of those with a checksum pass it."""
    data = mutate(seed, form.name, samples, form.structure)
    return form.finish(data) if form.finish is not None and seed % 4 else data


def attempt(form: FileFormat, content: bytes, bench: Bench, folder: Path) -> tuple[bool, str | None]:
    """Whether the file was read, and what is wrong with how it was not."""
    path = folder / form.file
    path.write_bytes(content)
    try:
        form.read(path, bench)
    except LayerMergeError as error:
        return False, _message_fault(error.message)
    except OSError as error:  # which the command line tells in one line, too
        return False, None if error.strerror else f"OSError without words: {error!r}"
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__)]
        ours = [f for f in frames if "/trt_layermerge/" in f.filename and "/tests/" not in f.filename] or frames
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return False, f"{type(error).__name__} at {place}: {str(error)[:200]}"
    return True, None


_PYTHONS = {name for name, one in vars(builtins).items() if isinstance(one, type) and issubclass(one, Exception)}
_PYTHONS -= {"Exception"}  # a word that ONNX Runtime uses, too


def _message_fault(message: str) -> str | None:
    """What is wrong with a message: it is one line that can be printed, not endless, and in words, not in Python's."""
    if not message.strip():
        return "a message that says nothing"
    quoted = _PYTHONS.intersection(re.findall(r"\w+", message))
    if quoted and not message.startswith("task "):  # whose author wants to know what it raised
        return f"{message[:200]!r} quotes {', '.join(quoted)}"
    return None if message.isprintable() and len(message) <= 2 * LONGEST else f"{message[:200]!r} is no line to print"


def run_chunk(form: FileFormat, seeds: range, bench: Bench, samples: list[bytes]) -> Found:
    """Run inputs in a fork, and in another one behind each that ends its process."""
    found, at = Found(), seeds.start
    while at < seeds.stop:
        shared = mmap.mmap(-1, _STATE.size)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            with contextlib.suppress(BaseException):
                _work(form, range(at, seeds.stop), bench, samples, shared, writing)
                os._exit(0)
            os._exit(99)
        os.close(writing)
        with open(reading, "rb") as pipe:
            said = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        seed, read, apart, seconds, slowest, memory, largest = _STATE.unpack(shared[:])
        faults = [(int(number), what) for number, what in map(json.loads, said.splitlines())]
        ended = seed + 1 if code else seeds.stop
        if code:
            faults.append((seed, "took too long" if code == -signal.SIGALRM else f"the process ended with {code}"))
        found.add(Found(ended - at, read, apart, seconds, slowest, float(memory), largest, faults))
        at = ended
    return found


def _work(form: FileFormat, seeds: range, bench: Bench, samples: list[bytes], shared: mmap.mmap, writing: int) -> None:
    warnings.simplefilter("ignore")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    _limit(MEMORY)
    read, apart, seconds, slowest, memory, largest = 0, 0, 0.0, -1, 0.0, -1
    for seed in seeds:
        shared[:] = _STATE.pack(seed, read, apart, seconds, slowest, memory, largest)
        content = content_of(form, seed, samples)
        signal.setitimer(signal.ITIMER_REAL, SECONDS * (4 if form.apart else 1))
        with tempfile.TemporaryDirectory() as folder:
            before, begin = _reset_peak(), _cpu_seconds()
            code = _SAFE if form.apart is None else _apart(form, content, Path(folder))
            apart += code != _SAFE
            badly = "is refused apart in a message that is none" if code == _BADLY else None
            was_read, fault = attempt(form, content, bench, Path(folder)) if code == _SAFE else (False, badly)
            took, peak = _cpu_seconds() - begin, _peak() - before
        signal.setitimer(signal.ITIMER_REAL, 0)
        read += was_read
        if took > seconds:
            seconds, slowest = took, seed
        if peak > memory:
            memory, largest = peak, seed
        if fault is not None:
            os.write(writing, json.dumps([seed, fault]).encode() + b"\n")
    shared[:] = _STATE.pack(seeds.stop - 1, read, apart, seconds, slowest, memory, largest)


_SAFE, _REFUSED, _BADLY = 0, 3, 4


def _apart(form: FileFormat, content: bytes, folder: Path) -> int:
    """Whether the probe would let a file pass; what it does in a process of its own, in a fork: it has all imports."""
    path = folder / form.file
    path.write_bytes(content)
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        assert form.apart is not None
        outcome = _outcome(form.apart, str(path), MEMORY)
        os._exit(_SAFE if not outcome else _BADLY if _message_fault(outcome["message"] or "") else _REFUSED)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _cpu_seconds() -> float:
    """Of this process and those that it waited for; what others on the machine do does not matter to it."""
    return sum(os.times()[:4])


def _status(name: str) -> float:
    """A size of this process in bytes; where the system does not tell it, the most it ever had."""
    try:
        (line,) = re.findall(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        return 1024.0 * int(line)
    except (OSError, ValueError):
        return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reset_peak() -> float:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def campaign(folder: Path, inputs: int, chunk: int, only: Iterable[str] = ()) -> Iterator[tuple[FileFormat, Found]]:
    """Run so many inputs over all formats, but what was run before; what was found of each format."""
    bench = Bench(folder / "valid")
    bench.prepare()
    formats = [form for form in FORMATS.values() if not only or form.name in only]
    per_share = inputs / sum(form.share for form in formats)
    for form in formats:
        samples, wanted = list(form.samples(bench)), -int(-per_share * form.share // 1)
        results = folder / f"{form.name.replace(' ', '-').replace(',', '')}.jsonl"
        done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
        total = Found()
        for line in done:
            total.add(Found(**line))
        while total.inputs < wanted:
            found = run_chunk(form, range(total.inputs, min(total.inputs + chunk, wanted)), bench, samples)
            with open(results, "a") as file:
                file.write(json.dumps(asdict(found)) + "\n")
            total.add(found)
        for seed, _ in total.faults:
            _keep(folder / "faults" / f"{seed}-{form.file}", content_of(form, seed, samples))
        yield form, total


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _table(results: Iterable[tuple[FileFormat, Found]]) -> bool:
    """Print what was found; whether nothing is wrong."""
    row = "{:<30} {:>8} {:>8} {:>8} {:>7} {:>10} {:>10} {:>10}"
    print(row.format("format", "inputs", "read", "refused", "apart", "tracebacks", "crashes", "worst s  MB"))
    total = Found()
    for form, found in results:
        ended = sum(what.startswith(("the process", "took")) for _, what in found.faults)
        worst = f"{found.seconds:.2f} {found.memory / 1e6:.0f}"
        refused = found.inputs - found.read - found.crashed_apart - len(found.faults)
        counts = (found.inputs, found.read, refused, found.crashed_apart, len(found.faults) - ended, ended, worst)
        print(row.format(form.name, *counts), flush=True)
        for seed, what in found.faults[:20]:
            print(f"    seed {seed}: {what}")
        total.add(found)
    print(f"{total.inputs} inputs, {len(total.faults)} faults")
    return not total.faults


def _main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--chunk", type=int, default=500)
    parser.add_argument("--only", action="append", default=[], choices=list(FORMATS))
    parser.add_argument("--seed", type=int)
    given: Any = parser.parse_args()
    torch.set_num_threads(1)
    if given.seed is None:
        return 0 if _table(campaign(given.folder, given.inputs, given.chunk, given.only)) else 1
    bench, form = Bench(given.folder / "valid"), FORMATS[given.only[0]]
    bench.prepare()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / form.file
        path.write_bytes(content_of(form, given.seed, list(form.samples(bench))))
        print(path.read_bytes()[:2000])
        form.read(path, bench)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
