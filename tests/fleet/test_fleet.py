"""What a fleet says before there is one, and small pieces of work on a real one of this machine alone."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.sample_work import open_squares
from trt_layermerge.errors import ExitCode, IncompatibleError, RuntimeNotAvailableError, TaskError, UsageError
from trt_layermerge.fleet import fleet
from trt_layermerge.fleet.claims import claim
from trt_layermerge.fleet.fleet import Fleet
from trt_layermerge.fleet.messages import Fault, Refused
from trt_layermerge.fleet.work import Work

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install ray, or the extra fleet"
)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a fleet says, in a temporary folder of its own that is empty after, with our samples on its path."""
    found: list[str] = []
    monkeypatch.setattr(fleet, "say", found.append)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="f") as short:
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield found
        assert not list(Path(short).iterdir()), "something is left"


def refuse(item: int, reason: str) -> tuple[int, int]:
    raise AssertionError(f"{item} was given up: {reason}")


@needs_ray
def test_addresses() -> None:
    assert Fleet.parse("local") == Fleet(None) and Fleet.parse("local:3") == Fleet(None, 3)
    assert Fleet.parse("head.example:6379") == Fleet("head.example:6379")
    for text in ("", "local:0", "10.0.0.7", "ray://10.0.0.7:10001", "head:port"):
        with pytest.raises(UsageError, match="no fleet"):
            Fleet.parse(text)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "find_spec", lambda name: None)
    with pytest.raises(RuntimeNotAvailableError, match=r"needs Ray.*\n.*\.\[fleet\]") as caught:
        Fleet.parse("local")
    assert caught.value.exit_code is ExitCode.NOT_AVAILABLE


def test_where_no_head_answers_nothing_is_started() -> None:
    with pytest.raises(RuntimeNotAvailableError, match=r"no head of a fleet answers at 127.0.0.1:9\n.*ray start"):
        list(Fleet("127.0.0.1:9").results(Work(open_squares, "", "core", 4), [1], refuse))


def test_machines_that_differ_are_another_error_than_machines_that_are_gone() -> None:
    assert isinstance(fleet._deserted([Refused("numpy: 1, here 2")]), IncompatibleError)
    gone = (fleet._deserted([]), fleet._deserted([Refused("a"), Refused("no GPU", incompatible=False)]))
    assert all(isinstance(one, RuntimeNotAvailableError) for one in gone)


def test_faults_of_workers_are_the_errors_that_they_were() -> None:
    error = fleet._error(Fault("TaskError", "the task has no data", "give it some"))
    assert isinstance(error, TaskError) and str(error) == "the task has no data\n  hint: give it some"
    for name in ("", "ZeroDivisionError", "Caution", "no such name"):
        error = fleet._error(Fault(name, "a trace"))
        assert type(error) is RuntimeError and "a trace" in str(error)


@needs_ray
def test_an_item_that_ends_its_workers_is_given_up_and_all_others_are_measured(heard: list[str]) -> None:
    work, items = Work(open_squares, "", "core", 4), [*range(7), -1, *range(7, 12)]
    found = list(Fleet(None, 2).results(work, items, lambda item, reason: (item, 0)))
    assert sorted(found) == sorted([(-1, 0), *((number, number**2) for number in range(12))])
    assert heard.count("a worker says something") >= 1
    assert sum("was lost" in one for one in heard) == 3


@needs_ray
def test_a_device_is_waited_for_while_another_fleet_has_it(heard: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    other = claim("cpu")

    def hear(text: str) -> None:
        heard.append(text)
        other.release()

    monkeypatch.setattr(fleet, "say", hear)
    found = list(Fleet(None, 2).results(Work(open_squares, "", "cpu", 4), [2, 3], refuse))
    assert sorted(found) == [(2, 4), (3, 9)]
    assert len(heard) == 1 and "at work on the device of" in heard[0] and "another process" in heard[0]
