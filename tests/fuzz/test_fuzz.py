"""A sample of ``make test-fuzz``, and that it sees what it is for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.bench import Bench
from tests.fuzz.campaign import attempt, content_of, run_chunk
from tests.fuzz.formats import FORMATS, FileFormat
from tests.fuzz.mutation import mutate
from trt_layermerge import files
from trt_layermerge.errors import InputError, TableError

TEXT = FileFormat(
    "text", "t.json", lambda _: [b'{"a": [1, 2.5, "x"]}'], lambda path, _: files.parse_json(path.read_bytes())
)


def test_a_sample_of_all_formats(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.campaign", str(tmp_path), "--inputs", "1500"]
    root = Path(__file__).parents[2]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name in FORMATS:
        assert name in ran.stdout


@given(seed=st.integers(0, 10**6), samples=st.lists(st.binary(), min_size=1, max_size=3))
def test_a_seed_is_all_that_makes_an_input(seed: int, samples: list[bytes]) -> None:
    assert mutate(seed, "f", samples, None) == mutate(seed, "f", samples, None)


@pytest.mark.parametrize(
    "error, fault",
    [
        (TableError("p.jsonl, line 2: the line is not JSON"), None),
        (OSError(28, "No space left on device"), None),
        (KeyError("row"), "KeyError at test_fuzz.py"),
        (RecursionError("too deep"), "RecursionError"),
        (SystemExit(0), "SystemExit"),
        (InputError(" "), "says nothing"),
        (InputError("f cannot be read: KeyError: 3"), "quotes KeyError"),
    ],
)
def test_what_a_reader_may_raise(error: BaseException, fault: str | None, tmp_path: Path) -> None:
    def read(_path: Path, _bench: Bench) -> None:
        raise error

    was_read, found = attempt(replace(TEXT, read=read), b"", Bench(tmp_path), tmp_path)
    assert not was_read and (found is None if fault is None else found is not None and fault in found)


def test_a_crash_costs_one_input_and_is_told(tmp_path: Path) -> None:
    crashing = {3: signal.SIGABRT, 7: signal.SIGKILL}
    contents = {content_of(TEXT, seed, TEXT.samples(Bench(tmp_path))): code for seed, code in crashing.items()}

    def read(path: Path, _bench: Bench) -> None:
        if (code := contents.get(path.read_bytes())) is not None:
            signal.signal(signal.SIGABRT, signal.SIG_DFL)
            os.kill(os.getpid(), code)

    bench = Bench(tmp_path)
    found = run_chunk(replace(TEXT, read=read), range(10), bench, list(TEXT.samples(bench)))
    assert found.inputs == 10 and found.read == 8
    assert [seed for seed, _ in found.faults] == [3, 7] and "ended with -6" in found.faults[0][1]


@pytest.mark.parametrize("name", FORMATS)
def test_valid_files_are_read(name: str, bench: Bench, tmp_path: Path) -> None:
    form = FORMATS[name]
    for sample in form.samples(bench):
        assert attempt(form, sample, bench, tmp_path) == (True, None)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = Bench(tmp_path_factory.mktemp("valid"))
    made.prepare()
    return made
