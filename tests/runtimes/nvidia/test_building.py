from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.errors import ExitCode, ModelError, RuntimeNotAvailableError
from trt_layermerge.runtimes.nvidia.building import BuildOutcome, BuildRequest, build

LIBRARY = Path(__file__).parent / "assets" / "library"
IMAGES = {"x": ((1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8))}


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put the library in the way of the genuine one, with a fault."""
    monkeypatch.syspath_prepend(str(LIBRARY))
    return lambda name, **given: [monkeypatch.setenv(key, value) for key, value in {"FAULT": name, **given}.items()]


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    return BuildRequest("tensorrt", tmp_path / "model.onnx", tmp_path / "out" / "plan", IMAGES)


def _told(request: BuildRequest) -> tuple[BuildOutcome, dict[str, Any]]:
    outcome = build(request, 60)
    return outcome, json.loads(request.plan.read_bytes())


def test_a_request_survives_its_json(tmp_path: Path) -> None:
    full = BuildRequest(
        "tensorrt", Path("m"), Path("p"), IMAGES, 1 << 28, 5, True, tmp_path / "c", True, ("sm75",), "ab", "-a=1"
    )
    assert BuildRequest.from_json(full.to_json()) == full
    bare = BuildRequest("tensorrt_rtx", Path("m"), Path("p"), {})
    assert BuildRequest.from_json(bare.to_json()) == bare


def test_the_builder_is_told_what_was_asked_for(fault, request_) -> None:
    fault("")
    outcome, told = _told(request_)
    assert told["flags"] == [], "TF32 is cleared unless it is asked for"
    assert told["level"] is None and "WORKSPACE" not in told and told["verbosity"] == "DETAILED"
    assert told["profiles"] == 1 and told["shapes"]["x"] == [list(shape) for shape in IMAGES["x"]]
    assert told["shapes"]["scale"] == [[3], [3], [3]]
    assert told["formats"] == {"x": None, "scale": None, "y": None}
    assert outcome.version == "10.16.1.11" and outcome.simulated and outcome.size == request_.plan.stat().st_size
    assert outcome.warnings == ("nothing is about to happen",) and outcome.skipped_tactics == ()
    assert outcome.layers is None and 0 < outcome.seconds < 60


def test_limits_level_and_tf32_reach_the_builder(fault, request_, tmp_path) -> None:
    fault("")
    asked = BuildRequest(
        "tensorrt", request_.model, request_.plan, IMAGES, workspace_bytes=1 << 28, optimization_level=4, tf32=True
    )
    _, told = _told(asked)
    assert told["WORKSPACE"] == 1 << 28 and told["level"] == 4 and "TF32" in told["flags"]


def test_images_in_any_format_are_those_that_have_the_type(fault, request_) -> None:
    fault("")
    _, told = _told(BuildRequest("tensorrt", request_.model, request_.plan, IMAGES, any_format=True))
    linear, chw2, hwc8, chw4, chw32, hwc = (1 << bit for bit in (0, 1, 2, 3, 5, 8))
    assert told["formats"] == {"x": linear | chw32 | hwc, "scale": None, "y": linear | chw2 | hwc8 | chw4 | chw32}


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({}, "open shape"),
        ({"x": ((1, 3, 8),) * 3}, "cannot take"),
        ({"x": ((1, 4, 8, 8),) * 3}, "cannot take"),
        ({"z": ((1,),) * 3, **IMAGES}, "no input 'z', only x, scale"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(fault, request_, shapes, words) -> None:
    fault("")
    with pytest.raises(ModelError, match=words):
        build(BuildRequest("tensorrt", request_.model, request_.plan, shapes), 60)


def test_tactics_skipped_for_memory_are_recorded(fault, request_) -> None:
    fault("memory")
    outcome = build(request_, 60)
    assert len(outcome.skipped_tactics) == 3 and len(outcome.warnings) == 3
    assert "629145600" in outcome.skipped_tactics[0] and "workspace memory" in outcome.skipped_tactics[1]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("parser", r"node 'conv7' \(Conv\): kernel too odd; no such file"),
        ("silent parser", "does not say why"),
        ("none", "cannot build .*(\n.*)*none is about to happen"),
        ("crash", r"crashed \(SIGSEGV\).*(\n.*)*crash is about to happen"),
        ("exit", "the builder ended with exit code 7 .*(\n.*)*exit is about"),
        ("raise", "exit code 1 .*(\n.*)*out of everything"),
        ("profile", "refuses the range of shapes"),
    ],
)
def test_a_fault_loses_one_engine_with_the_last_messages(fault, request_, name, words) -> None:
    fault(name)
    with pytest.raises(ModelError, match=words) as caught:
        build(request_, 60)
    assert caught.value.exit_code is ExitCode.BAD_INPUT and not request_.plan.exists()


@pytest.mark.parametrize("garbage", ["", "{", "[]", "7", "null", "{}", '{"error": "SystemExit"}', '{"version": "1"}'])
def test_an_answer_that_is_none_is_not_believed(fault, request_, garbage) -> None:
    fault("garbage", GARBAGE=garbage)
    with pytest.raises(ModelError, match="left no answer"):
        build(request_, 60)


def test_a_builder_that_hangs_is_ended_with_all_it_started(fault, request_, tmp_path) -> None:
    fault("hang", CHILD=str(tmp_path / "child"))
    with pytest.raises(ModelError, match=r"longer than 5 s.*hang is about to happen"):
        build(request_, 5)
    assert not _runs(int((tmp_path / "child").read_text()))


def _runs(process: int) -> bool:
    """Whether a process is there and is no zombie that nobody has buried."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True


def test_a_builder_that_does_not_start_is_not_the_models_fault(fault, request_) -> None:
    fault("start")
    with pytest.raises(RuntimeNotAvailableError, match="nullptr"):
        build(request_, 60)


@pytest.mark.parametrize("version", ["10.8.0.43", "8.6.1", "9"])
def test_an_old_library_is_refused(fault, request_, version) -> None:
    fault("", VERSION=version)
    with pytest.raises(RuntimeNotAvailableError, match=f"{version} is too old") as caught:
        build(request_, 60)
    assert caught.value.hint is not None and "pip install" in caught.value.hint


def test_a_library_that_is_missing_is_named(request_, tmp_path, monkeypatch) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ModuleNotFoundError(\"No module named 'tensorrt'\")")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeNotAvailableError, match="TensorRT is not here") as caught:
        build(request_, 60)
    assert caught.value.exit_code is ExitCode.NOT_AVAILABLE


def test_the_worker_imports_neither_torch_nor_onnx() -> None:
    script = (
        "import sys, trt_layermerge.runtimes.nvidia.build_worker;"
        "assert not {'torch', 'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx'} & sys.modules.keys()"
    )
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", script) == 0
