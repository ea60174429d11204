from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from tests.doubles.fixtures import DRIVER
from trt_layermerge.cli.main import cli
from trt_layermerge.errors import RuntimeNotAvailableError, UsageError
from trt_layermerge.pipeline.first_run import first_run, write_first_run
from trt_layermerge.runtimes import survey
from trt_layermerge.runtimes.nvidia import cuda, library
from trt_layermerge.runtimes.nvidia.cuda import CudaDriver

TURING = CudaDriver("570.86.15", "12.8", "NVIDIA GeForce RTX 2080 Ti", "7.5", "0000:01:00.0")


def no_driver() -> CudaDriver:
    raise RuntimeNotAvailableError("there is no NVIDIA driver here", hint="install one")


def findings() -> dict[str, survey.Finding]:
    return {finding.what: finding for finding in survey.survey()}


def test_every_finding_that_is_missing_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setattr(survey, "driver", no_driver)
    found = findings()
    assert found["driver"].found is None and found["GPU"].found is None
    assert all(finding.fix for finding in found.values() if finding.found is None)


def test_every_finding_has_a_name_of_its_own() -> None:
    names = [finding.what for finding in survey.survey()]
    assert len(names) == len(set(names))


def test_a_gpu_is_told_with_its_compute_capability(monkeypatch) -> None:
    monkeypatch.setattr(survey, "driver", lambda: TURING)
    monkeypatch.setattr(survey, "open_nvml", lambda bus: None)
    found = findings()
    assert found["GPU"].found == "NVIDIA GeForce RTX 2080 Ti, compute capability 7.5" and found["GPU"].fix is None


@pytest.mark.parametrize(("cuda", "fits"), [("13.0", False), ("12.9", True), ("12.6", True), (None, True)])
def test_a_torch_whose_cuda_is_too_new_for_the_driver_is_named(doubles, monkeypatch, cuda, fits) -> None:
    """A newer minor version of the driver's major one works: NVIDIA's minor version compatibility."""
    old = replace(DRIVER, version="570.86.15", cuda="12.8")
    monkeypatch.setattr(survey, "driver", lambda: old)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    found = findings()["PyTorch"]
    assert torch.__version__ in str(found.found) and found.fix is None if fits else "570.86.15" in str(found.fix)
    assert fits or "constraints-cuda12.txt" in str(found.fix)


def test_a_gpu_that_tensorrt_no_longer_supports_is_named(monkeypatch) -> None:
    pascal = CudaDriver("570.86.15", "12.8", "NVIDIA GeForce GTX 1080", "6.1", "0000:01:00.0")
    monkeypatch.setattr(survey, "driver", lambda: pascal)
    monkeypatch.setattr(survey, "open_nvml", lambda bus: None)
    assert "7.5" in (findings()["GPU"].fix or "")


def test_a_library_that_crashes_its_process_is_a_finding(monkeypatch) -> None:
    monkeypatch.setattr(library.sys, "executable", "/bin/false")
    assert findings()["tensorrt"].found is None


def test_a_self_check_on_the_cpu(monkeypatch) -> None:
    monkeypatch.setattr(survey, "driver", no_driver)
    done = CliRunner().invoke(cli, ["doctor", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["self_check"]["merge_error"] < 1e-4 and told["self_check"]["engine_error"] < 1e-4
    assert told["self_check"]["merged_ms"] > 0 and not told["self_check"]["device"]["simulated"]


def test_what_is_missing_is_shown_before_a_runtime_is_refused(monkeypatch) -> None:
    cuda.driver.cache_clear()
    done = CliRunner().invoke(cli, ["doctor", "--runtime", "tensorrt"])
    assert isinstance(done.exception, RuntimeNotAvailableError) and "onnxruntime" in done.stdout


def test_a_report_is_printed_as_the_doctor_would_and_only_that_file_is_looked_at(tmp_path, monkeypatch) -> None:
    path = tmp_path / "report.json"
    write_first_run(path, first_run("onnxruntime-cuda"))
    monkeypatch.setattr(survey, "driver", None)  # nothing is asked of this machine
    shown = CliRunner().invoke(cli, ["doctor", "--replay", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "open the runtime failed" in shown.output and "PyTorch" in shown.output and "torch" in shown.output
    found = json.loads(CliRunner().invoke(cli, ["doctor", "--replay", str(path), "--json"]).output)
    assert found["format"] == 1 and found["rows"] == [] and found["failures"][0]["hint"]


def test_a_report_is_written_or_read_not_both() -> None:
    refused = CliRunner().invoke(cli, ["doctor", "--report", "a", "--replay", "b"])
    assert isinstance(refused.exception, UsageError) and "pass one of them" in refused.exception.message
