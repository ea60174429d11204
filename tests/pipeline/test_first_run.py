from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from trt_layermerge.errors import InputError
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.standard_table import standard_signatures
from trt_layermerge.pipeline import first_run as module
from trt_layermerge.pipeline.first_run import FirstRun, first_run, read_first_run, write_first_run


@pytest.fixture(scope="module")
def run() -> FirstRun:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "standard_signatures", lambda precision: standard_signatures(precision)[-2:])
        patch.setattr(module, "POLICY", MeasurementPolicy(relative_ci=1e3, min_samples=6, burst_seconds=1e-4))
        return first_run("onnxruntime")


def test_what_was_found_built_and_timed_is_told_and_read_back(run: FirstRun, tmp_path: Path) -> None:
    assert run.failures == () and run.self_check is not None and run.device == run.self_check.device
    assert [row.signature for row in run.rows] == [one.key for one in standard_signatures("fp32")[-2:]]
    assert all(row.median_us and row.low_us and row.low_us <= row.median_us for row in run.rows)
    assert {"python", "torch"} <= run.versions.keys() and {"driver", "onnxruntime"} <= {
        one.what for one in run.findings
    }
    write_first_run(tmp_path / "report.json", run)
    again = read_first_run(tmp_path / "report.json")
    assert again.rows == run.rows and again.self_check == run.self_check and again.versions == run.versions


def test_a_failure_is_told_in_full_and_without_its_owner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    where = tmp_path / "secret" / "net.onnx"

    def fails(*_: object) -> None:
        raise ZeroDivisionError(f"in {where}")

    monkeypatch.setattr(module, "check_itself", fails)
    run = first_run("onnxruntime")
    (failure,) = run.failures
    assert failure.stage == "self-check" and "ZeroDivisionError" in failure.trace and run.rows == ()
    write_first_run(tmp_path / "report.json", run)
    text = (tmp_path / "report.json").read_text()
    assert str(tmp_path) not in text and "secret" not in text and "net.onnx" in text
    assert ".../trt_layermerge/pipeline/first_run.py" in text


def test_a_runtime_that_is_not_here_is_a_failure_with_its_hint() -> None:
    run = first_run("onnxruntime-cuda")
    assert run.device is None and run.failures[0].stage == "open the runtime" and run.failures[0].hint and run.findings


@pytest.mark.parametrize(("change", "words"), [({"format": 2}, "format"), ({"rows": 3}, "rows"), (None, "whole of it")])
def test_what_is_no_report_is_refused_with_the_field(
    run: FirstRun, tmp_path: Path, change: dict[str, int] | None, words: str
) -> None:
    path = tmp_path / "report.json"
    write_first_run(path, run)
    path.write_text("{" if change is None else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=words):
        read_first_run(path)
    with pytest.raises(InputError, match="cannot read"):
        read_first_run(tmp_path / "nowhere")


def test_a_strangers_report_moves_no_cursor(run: FirstRun, tmp_path: Path) -> None:
    fields = json.loads(json.dumps(asdict(run)))
    fields["versions"] = {"\x1b[2J": "\x07"}
    fields["failures"] = [{"stage": "\ud800", "message": "[/x]\u202e", "hint": None, "trace": "one\ntwo\x1b[1A"}]
    (tmp_path / "report.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match="character that is none"):
        read_first_run(tmp_path / "report.json")
    fields["failures"][0]["stage"] = "s"
    (tmp_path / "report.json").write_text(json.dumps(fields))
    (failure,) = (found := read_first_run(tmp_path / "report.json")).failures
    assert failure.trace.count("\n") == 1 and failure.trace.replace("\n", "").isprintable()
    assert failure.message.isprintable() and all(map(str.isprintable, found.versions))
