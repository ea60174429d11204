"""A worker, without Ray: it is a class as any other."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet.sample_work import open_squares
from trt_layermerge.fleet import claims
from trt_layermerge.fleet.claims import claim
from trt_layermerge.fleet.messages import Busy, Fault, ItemResults, Joined, Refused
from trt_layermerge.fleet.worker import Worker, source_identity


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(claims, "_root", lambda: tmp_path)
    before, one = tempfile.gettempdir(), Worker()
    yield one
    one.leave()
    assert not list(tmp_path.iterdir()) and tempfile.gettempdir() == before


def work(setting: str) -> bytes:
    return pickle.dumps((open_squares, setting))


def numbers(*given: int) -> list[bytes]:
    return [pickle.dumps(one) for one in given]


def test_it_measures_in_a_folder_of_its_own(worker: Worker, tmp_path: Path) -> None:
    assert worker.join(work(""), "core") == Joined() and Path(tempfile.gettempdir()).parent == tmp_path
    answer = worker.measure(numbers(1, 3))
    assert isinstance(answer, ItemResults) and answer.said == ("a worker says something",)
    assert pickle.loads(answer.results) == [(1, 1), (3, 9)]


def test_one_worker_a_device(worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    other = claim("gpu-3")
    answer = worker.join(work(""), "gpu")
    assert isinstance(answer, Busy) and "another process" in answer.other
    other.release()
    assert worker.join(work(""), "gpu") == Joined() and (tmp_path / "lm-fleet-gpu-3").is_dir()


def test_a_machine_that_differs_refuses_and_leaves_nothing(worker: Worker, tmp_path: Path) -> None:
    assert worker.join(work("another device"), "cpu") == Refused("device: this one, here another")
    assert not list(tmp_path.iterdir())


def test_errors_are_told_with_their_hints_and_faults_of_ours_with_their_traces(worker: Worker) -> None:
    worker.join(work("raises"), "core")
    assert worker.measure(numbers(2)) == Fault("TaskError", "the task has no data", "give it some")
    worker.leave()
    worker.join(work("fault"), "core")
    answer = worker.measure(numbers(2))
    assert isinstance(answer, Fault) and answer.message.rstrip().endswith("ZeroDivisionError: of ours")


def test_it_is_known_by_its_source_and_its_packages() -> None:
    assert {
        "python",
        "torch",
        "source of trt_layermerge",
    } <= source_identity().keys() and Worker().identity() == source_identity()
