"""Planning for a card that is elsewhere, and ``profile estimate``, as a user meets them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Desk, Ran, _desk, _run

ELSEWHERE = ("--runtime", "estimate:rtx-2080-ti")
HEADER = "in_channels,out_channels,kernel,stride,padding,groups,height,width,batch,precision"
ROW = "32,192,3,1,1,1,56,56,128,fp32"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, Ran]:
    """A whole job, done once."""
    desk = _desk(tmp_path_factory.mktemp("estimate"))
    return desk, _run("compress", *desk.job, *ELSEWHERE, "--json")


def test_a_whole_job_runs_without_the_card_and_calls_everything_simulated(job: Any) -> None:
    desk, ran = job
    assert ran.code == 0, ran.err
    assert ran.json["simulated"] is True
    manifest = json.loads((desk.folder / "out" / "manifest.json").read_text())
    assert manifest["simulated"] and manifest["device"]["simulated"]
    assert manifest["device"]["name"] == "NVIDIA GeForce RTX 2080 Ti"
    assert "No device was timed" in (desk.folder / "out" / "report.html").read_text()
    (path,) = (desk.folder / "profiles").rglob("*.jsonl")
    key, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert "simulated" in path.parent.name and key["simulated"] and key["runtime"] == "estimate:rtx-2080-ti"
    assert {(row["status"], row["simulated"]) for row in rows} == {("degraded", True)}  # batch 8 is far from 128
    assert all("uncalibrated" in row["reason"] for row in rows)


def test_profile_and_solve_go_on_from_it(job: Any) -> None:
    desk, _ = job
    again = _run("profile", *desk.stage, *ELSEWHERE, "--json")
    assert again.code == 0 and again.json["measured"] == 0 and again.json["simulated"] is True
    solved = _run("solve", *desk.stage, *ELSEWHERE, "--budget", "0.9", "--json")
    assert solved.code == 0, solved.err


def test_verify_computes_on_the_cpu_and_says_simulated(job: Any) -> None:
    desk, _ = job
    ran = _run("verify", "--manifest", desk.folder / "out" / "manifest.json", "--json")
    assert ran.code == 0 and ran.json["simulated"] is True, ran.err


def test_another_library_is_another_profile(job: Any) -> None:
    desk, _ = job
    other = _run("profile", *desk.stage, *ELSEWHERE, "--estimated-runtime", "tensorrt-8.4", "--dry-run", "--json")
    assert other.code == 0 and "tensorrt-8.4" in other.json["profile"] and other.json["to_measure"] > 0, other.err
    refused = _run("profile", *desk.stage, *ELSEWHERE, "--estimated-runtime", "cudnn-8")
    assert refused.code == 2 and "--estimated-runtime" in refused.err


def test_an_unknown_card_lists_the_known_ones(job: Any) -> None:
    desk, _ = job
    ran = _run("profile", *desk.stage, "--runtime", "estimate:rtx-2081")
    assert ran.code == 2 and "rtx-2080-ti" in ran.err


def _table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "rows.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_estimates_are_appended_to_the_rows(tmp_path: Path) -> None:
    ran = _run("profile", "estimate", "--device", "rtx-2080-ti", "--csv", _table(tmp_path, ROW, ROW))
    assert ran.code == 0, ran.err
    first, second = _rows(ran.out)
    assert first == second and ran.out.splitlines()[0] == f"{HEADER},latency_ms,low_ms,high_ms,algorithm,calibrated"
    assert 0 < float(first["low_ms"]) < float(first["latency_ms"]) < float(first["high_ms"])
    assert (first["algorithm"], first["calibrated"]) == ("winograd", "calibrated")
    assert "RTX 2080 Ti" in ran.err


def test_runtime_and_timing_are_columns_of_their_own(tmp_path: Path) -> None:
    wide = "64,64,9,1,4,1,28,28,128,fp32"
    table = _table(
        tmp_path,
        f"{wide},tensorrt-8.4,torch-call",
        f"{wide},tensorrt-8.4,engine",
        f"{wide},,",
        header=f"{HEADER},runtime,timing",
    )
    called, run, without_fft = _rows(_run("profile", "estimate", "--device", "rtx-2080-ti", "--csv", table).out)
    assert [row["algorithm"] for row in (called, run, without_fft)] == ["fft", "fft", "implicit-gemm"]
    assert float(called["latency_ms"]) - float(run["latency_ms"]) == pytest.approx(0.288, abs=0.01)
    assert float(without_fft["latency_ms"]) > float(run["latency_ms"])


def test_measured_latencies_are_kept_beside_estimates_and_compared(tmp_path: Path) -> None:
    table = _table(tmp_path, f"{ROW},5.0,mine", header=f"{HEADER},latency_ms,note")
    target = tmp_path / "out.csv"
    ran = _run("profile", "estimate", "--device", "t4", "--csv", table, "--output", target)
    assert ran.code == 0 and "SIMULATED" in ran.out and "against latency_ms" in ran.err
    (row,) = _rows(target.read_text())
    assert row["measured_ms"] == "5.0" and row["note"] == "mine" and row["calibrated"] == "transferred"
    assert "constants of another card" in ran.err


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("32,192,x,1,1,1,56,56,128,fp32", ["row 2", "kernel"]),
        ("32,192,3,0,1,1,56,56,128,fp32", ["row 2", "stride"]),
        ("32,192,3,1,1,5,56,56,128,fp32", ["row 2", "groups"]),
        ("32,192,3,1,0,1,2,56,128,fp32", ["row 2", "kernel"]),
        ("32,192,3,1,1,1,56,56,128,bf16", ["row 2", "precision"]),
        ("32,192,3,1,1,1,999999999,999999999,128,fp32", ["row 2", "elements"]),
        ("32,192,3,1,1,1,56,56,128", ["row 2", "cells"]),
    ],
)
def test_a_bad_row_is_named_with_its_column(row: str, words: list[str], tmp_path: Path) -> None:
    ran = _run("profile", "estimate", "--device", "rtx-2080-ti", "--csv", _table(tmp_path, ROW, row))
    assert ran.code == 3 and ran.out == "" and all(word in ran.err for word in words), ran.err


@pytest.mark.parametrize(("column", "value"), [("runtime", "cudnn-8.9"), ("runtime", "tensorrt"), ("timing", "gpu")])
def test_a_runtime_that_cannot_be_estimated_is_refused(column: str, value: str, tmp_path: Path) -> None:
    table = _table(tmp_path, f"{ROW},{value}", header=f"{HEADER},{column}")
    ran = _run("profile", "estimate", "--device", "rtx-2080-ti", "--csv", table)
    assert ran.code == 3 and "row 1" in ran.err and column in ran.err and value in ran.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "gtx-1080", "--csv", "x.csv"], ["rtx-2080-ti", "t4"]),
        (["--device", "rtx-2080-ti"], ["--csv"]),
        (["--csv", "x.csv"], ["--device"]),
        (["--device", "rtx-2080-ti", "--csv", "x.csv", "--save", "card.toml"], ["--recalibrate"]),
    ],
)
def test_wrong_usage(arguments: list[str], words: list[str]) -> None:
    ran = _run("profile", "estimate", *arguments)
    assert ran.code == 2 and all(word in ran.err for word in words), ran.err


def test_profile_of_a_model_still_stands_beside_it() -> None:
    assert "MODEL" in _run("profile", "--help").out and "profile estimate" in _run("profile", "--help").out
    assert "--csv" in _run("profile", "estimate", "--help").out
    assert _run("profile", "./estimate").code == 3  # a file of that name
