"""Every command with ``--runtime tensorrt-rtx``: refused without a card, and the whole job on a double of one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Desk, Ran, _desk, _run
from tests.doubles.fixtures import Tell, replaced
from trt_layermerge.errors import ExitCode
from trt_layermerge.runtimes.nvidia.rtx_plan import read_header

RTX = ("--runtime", "tensorrt-rtx")


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="there is an NVIDIA driver here")
@pytest.mark.parametrize("name", ["tensorrt-rtx", "tensorrt-rtx:sm86"])
def test_without_a_card_nothing_is_timed_and_nothing_loaded_to_say_so(name: str) -> None:
    script = (
        "import sys; from trt_layermerge.cli.main import main\n"
        f"try: main(['compress', 'anything', '--runtime', '{name}'])\n"
        "finally: print([name for name in ('torch', 'onnx', 'tensorrt_rtx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == ExitCode.NOT_AVAILABLE and done.stdout.strip() == "[]"
    assert "'tensorrt-rtx' cannot run here: " in done.stderr and "no NVIDIA driver" in done.stderr


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, Ran, Tell]]:
    """A whole job, done once."""
    folder = tmp_path_factory.mktemp("tensorrt-rtx")
    with replaced(folder) as tell:
        tell(run_us=100)
        desk = _desk(folder)
        yield desk, _run("compress", *desk.job, *RTX, "--json"), tell


def test_compress_delivers_an_engine_and_calls_it_simulated(job: Any) -> None:
    desk, ran, _ = job
    assert ran.code == 8, "the double's engines take as long whatever they compute"
    assert ran.json["original"]["launches"] > 0 and ran.json["compressed"]["launches"] > 0
    assert ran.json["simulated"] is True and ran.json["original"]["latency_ms"] == pytest.approx(0.1)
    manifest = json.loads((desk.folder / "out" / "manifest.json").read_text())
    assert manifest["device"]["runtime"] == "tensorrt-rtx:sm75" and manifest["device"]["simulated"]
    assert len(manifest["timing_cache"]) == 64, "the hash of the kernels that were compiled on the card"
    assert read_header(desk.folder / "out" / manifest["engine"]).targets == ("sm75",)


def test_its_profile_is_called_simulated_and_all_of_it_was_measured(job: Any) -> None:
    desk, _, _ = job
    (path,) = (desk.folder / "profiles").rglob("*.jsonl")
    key, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert (
        "simulated" in path.parent.name and key["simulated"] and [row["status"] for row in rows] == ["ok"] * len(rows)
    )


def test_verify_runs_the_engine_again(job: Any) -> None:
    desk, _, _ = job
    ran = _run("verify", "--manifest", desk.folder / "out" / "manifest.json", "--json")
    assert ran.code == 0 and ran.json["engine_error"] < 1e-4 and ran.json["simulated"] is True


def test_verify_refuses_an_engine_of_another_release(job: Any) -> None:
    desk, _, tell = job
    tell(rtx_version="1.8.0.1")
    try:
        ran = _run("verify", "--manifest", desk.folder / "out" / "manifest.json")
    finally:
        tell(rtx_version="1.7.1.116")
    assert ran.code == 9 and "1.7.1.116" in ran.err and ran.out == ""


def test_the_doctor_checks_itself_in_it(job: Any) -> None:
    ran = _run("doctor", *RTX, "--json")
    assert ran.code == 0 and ran.json["self_check"]["device"]["runtime"] == "tensorrt-rtx:sm75", ran.err
