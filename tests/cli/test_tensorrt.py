"""Every command with ``--runtime tensorrt``, on a double; whatever it prints or writes says that nothing was timed."""

from __future__ import annotations

import hashlib
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
    assert ran.code == 8, "the double's engines take as long whatever they compute"
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
    assert ran.code == 8 and "SIMULATED" in ran.out


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


def test_a_cache_that_a_job_filled_replays_the_job_and_nothing_else(job: Any) -> None:
    desk, _, _ = job
    (cache,) = (desk.folder / "cache").rglob("*.timing")
    before, out, profiles = cache.read_bytes(), desk.folder / "replayed", desk.folder / "replayed-profiles"
    only = ["--runtime", "tensorrt", "--timing-cache", cache, "--cache-only"]
    ran = _run("compress", *desk.job, "--output", out, "--profiles", profiles, *only, "--json")
    assert ran.code == 8 and cache.read_bytes() == before, ran.err
    (path,) = profiles.rglob("*.jsonl")
    key = json.loads(path.read_text().splitlines()[0])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["timing_cache"] == hashlib.sha256(before).hexdigest()
    assert f"timing cache {manifest['timing_cache'][:16]} alone" in key["settings"] == manifest["device"]["settings"]
    assert _run("verify", "--manifest", out / "manifest.json").code == 0, "who verifies has no cache"
    other = _run("profile", *desk.stage, *only)
    assert other.code == 9 and "timing cache" in other.err, "rows of tactics that were chosen otherwise"


@pytest.mark.parametrize("command", ["build", "profile", "compress"])
def test_what_a_cache_lacks_is_exit_9_in_one_message(job: Any, command: str, tmp_path: Any) -> None:
    desk, _, _ = job
    cache = tmp_path / "c.timing"
    cache.write_bytes(b'DOUBLE TIMING CACHE\n{"version": "11.4.0.106", "entries": {"of another model": 1}}')
    before = cache.read_bytes()
    only = ["--runtime", "tensorrt", "--timing-cache", cache, "--cache-only"]
    fresh = ["--output", tmp_path / "out", "--profiles", tmp_path / "profiles"]
    what = {
        "build": [desk.folder / "out" / "compressed.onnx", "--output", tmp_path / "net.engine"],
        "profile": [*desk.stage, *fresh],
        "compress": [*desk.job, *fresh],
    }
    ran = _run(command, *what[command], *only)
    assert ran.code == 9 and ran.out == "" and "Traceback" not in ran.err, ran.err
    assert ran.err.count("c.timing lacks a tactic") == 1 and "without --cache-only" in ran.err
    assert cache.read_bytes() == before and not list(tmp_path.rglob("*.engine"))


@pytest.mark.parametrize(
    ("content", "code", "words"), [(None, 3, "cannot read the timing cache"), (b"nothing", 9, "cannot be replayed")]
)
def test_a_cache_that_is_none_is_told_of(job: Any, content: bytes | None, code: int, words: str, tmp_path: Any) -> None:
    desk, _, _ = job
    if content is not None:
        (tmp_path / "c.timing").write_bytes(content)
    only = ["--runtime", "tensorrt", "--timing-cache", tmp_path / "c.timing", "--cache-only"]
    ran = _run("build", desk.folder / "out" / "compressed.onnx", *only, "--output", tmp_path / "net.engine")
    assert ran.code == code and words in ran.err and not (tmp_path / "net.engine").exists()


def test_engines_are_told_of_in_the_files_of_trtexec(job: Any, tmp_path: Any) -> None:
    desk, _, _ = job
    model, engine = desk.folder / "out" / "compressed.onnx", tmp_path / "net.engine"
    names = {"--export-times": "t.json", "--export-profile": "p.json", "--export-layer-info": "l.json"}
    files = [part for option, name in names.items() for part in (option, tmp_path / name)]
    ran = _run("build", model, "--runtime", "tensorrt", "--output", engine, *files)
    assert ran.code == 0, ran.err
    times, layers, infos = (_run("profile", "show", tmp_path / name, "--json").json for name in names.values())
    assert times["runs"] == 200 and times["timing"]["median_ns"] == 100_000
    assert layers["count"] == 200 and {row["name"] for row in layers["layers"]} == {
        row["name"] for row in infos["layers"]
    }
    exported = _run("profile", "export", tmp_path / "p.json", "--csv", "-").out.splitlines()
    assert exported[0] == "name,time_ms,average_ms,median_ms,percentage" and len(exported) == 1 + len(layers["layers"])
    assert "CaskConvolution" in _run("profile", "show", tmp_path / "l.json").out
    assert "200 runs" in _run("profile", "show", tmp_path / "t.json").out
    assert "share" in _run("profile", "show", tmp_path / "p.json", "--all").out


def test_what_a_runtime_does_not_tell_of_its_layers_it_says(job: Any, tmp_path: Any) -> None:
    desk, _, _ = job
    more = ["--output", tmp_path / "net.onnx", "--export-profile", tmp_path / "p.json"]
    ran = _run("build", desk.folder / "out" / "compressed.onnx", *more)
    assert ran.code == 2 and "do not tell of their layers" in ran.err and not (tmp_path / "net.onnx").exists()
    times = _run(
        "build",
        desk.folder / "out" / "compressed.onnx",
        "--output",
        tmp_path / "b.onnx",
        "--export-times",
        tmp_path / "t",
    )
    assert times.code == 0 and _run("profile", "show", tmp_path / "t", "--json").json["runs"] == 200
