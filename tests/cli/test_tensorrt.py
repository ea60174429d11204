"""Every command with ``--runtime tensorrt``, on a double; whatever it prints or writes says that nothing was timed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import Desk, Ran, _desk, _run
from tests.doubles.fixtures import Tell, replaced


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, Ran, Tell]]:
    """A whole job, done once."""
    folder = tmp_path_factory.mktemp("tensorrt")
    with replaced(folder) as tell:
        tell(run_us=100)
        desk = _desk(folder)
        yield desk, _run("compress", *desk.job, "--runtime", "tensorrt", "--json"), tell


def test_compress_delivers_an_engine_and_calls_it_simulated(job: Any) -> None:
    desk, ran, _ = job
    assert ran.code == 0, ran.err
    assert ran.json["simulated"] is True and ran.json["original"]["latency_ms"] == pytest.approx(0.1)
    manifest = json.loads((desk.folder / "out" / "manifest.json").read_text())
    assert manifest["simulated"] and manifest["device"]["simulated"] and manifest["device"]["runtime"] == "tensorrt"
    assert manifest["engine"] == "compressed.engine"
    assert "No device was timed" in (desk.folder / "out" / "report.html").read_text()


def test_its_profile_is_called_simulated_in_name_key_and_rows(job: Any) -> None:
    desk, _, _ = job
    (path,) = (desk.folder / "profiles").rglob("*.jsonl")
    key, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert "simulated" in path.parent.name and key["simulated"] and rows and all(row["simulated"] for row in rows)
    assert [row["status"] for row in rows] == ["ok"] * len(rows)


def test_profile_finds_everything_measured_and_says_simulated(job: Any) -> None:
    desk, _, _ = job
    ran = _run("profile", *desk.stage, "--runtime", "tensorrt", "--json")
    assert ran.code == 0 and ran.json["measured"] == 0 and ran.json["failed"] == 0 and ran.json["simulated"] is True
    assert "SIMULATED" in _run("profile", *desk.stage, "--runtime", "tensorrt").out


def test_compress_tells_people_that_nothing_was_timed(job: Any) -> None:
    desk, _, _ = job
    ran = _run("compress", *desk.job, "--runtime", "tensorrt")
    assert ran.code == 0 and "SIMULATED" in ran.out


def test_verify_runs_the_engine_again(job: Any) -> None:
    desk, _, _ = job
    ran = _run("verify", "--manifest", desk.folder / "out" / "manifest.json", "--json")
    assert ran.code == 0 and ran.json["engine_error"] < 1e-4 and ran.json["simulated"] is True
    assert "SIMULATED" in _run("verify", "--manifest", desk.folder / "out" / "manifest.json").out


def test_verify_refuses_an_engine_of_another_release(job: Any) -> None:
    desk, _, tell = job
    tell(version="10.16.1.11")
    try:
        ran = _run("verify", "--manifest", desk.folder / "out" / "manifest.json")
    finally:
        tell(version="11.4.0.106")
    assert ran.code == 9 and "11.4.0.106" in ran.err and ran.out == ""


def test_build_makes_an_engine_of_a_range_of_batches(job: Any) -> None:
    desk, _, _ = job
    target = desk.folder / "net.engine"
    more = ["--runtime", "tensorrt", "--batch", 4, "--batches", "1-8", "--output", target]
    ran = _run("build", desk.folder / "out" / "compressed.onnx", *more, "--json")
    assert ran.code == 0 and ran.json["inputs"]["input"][0] == 4 and target.is_file(), ran.err


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ({"parser_refuses": "Conv"}, 3, "No importer registered for op: Conv"),
        ({"builder_fails": "Could not find any implementation"}, 3, "Could not find any implementation"),
        ({"abort": True}, 3, "SIGABRT"),
        ({"no_builder": True}, 6, "CUDA initialization failure"),
        ({"memory_bytes": 10}, 3, "out of memory"),
        ({"version": "10.8.0.43"}, 6, "too old"),
    ],
)
def test_faults_have_their_exit_codes(job: Any, fault: dict[str, object], code: int, words: str, tmp_path: Any) -> None:
    desk, _, tell = job
    usual = {"parser_refuses": None, "builder_fails": None, "abort": False, "no_builder": False}
    usual |= {"memory_bytes": 2**33, "version": "11.4.0.106"}
    model = desk.folder / "out" / "compressed.onnx"
    tell(**fault)
    try:
        ran = _run("build", model, "--runtime", "tensorrt", "--output", tmp_path / "net.engine")
    finally:
        tell(**usual)
    assert ran.code == code and words in ran.err and "Traceback" not in ran.err and ran.out == ""
    assert not (tmp_path / "net.engine").exists()
