"""Every class of errors, met through the command line, with its exit code and one line of message."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.error_table import error_classes
from trt_layermerge import errors
from trt_layermerge.delivery.manifest import read_manifest, write_manifest
from trt_layermerge.pipeline import original

TESTS = Path(__file__).parents[1]
MANIFEST, PROFILE = (
    TESTS / "delivery" / "assets" / "manifest-v2.json",
    TESTS / "latency" / "assets" / "profile-v1.jsonl",
)
ROWS = ("start,end,kernel,depthwise,latency_ms\n0,1,3,0,1\n", "start,end,kernel,depthwise,importance\n0,1,3,0,0\n")

Arguments = Callable[[Any, pytest.MonkeyPatch], list[object]]


def _job(desk: Any, *more: object) -> list[object]:
    return ["compress", *desk.job, "--runtime", "estimate:rtx-2080-ti", *more]


def _proof(desk: Any, patch: pytest.MonkeyPatch) -> list[object]:
    patch.setattr(original, "NETWORK_TOLERANCE", -1.0)
    return _job(desk)


def _tables(desk: Any, _: pytest.MonkeyPatch) -> list[object]:
    for name, rows in zip(("latency", "importance"), ROWS, strict=True):
        (desk.folder / name).write_text(rows)
    tables = ["--latency", desk.folder / "latency", "--importance", desk.folder / "importance"]
    return ["solve", *tables, "--budget", "0.001ms"]


def _changed(desk: Any, _: pytest.MonkeyPatch) -> list[object]:
    path = desk.folder / "manifest.json"
    path.write_bytes(MANIFEST.read_bytes().replace(b'"batch": 8', b'"batch": 9'))
    return ["verify", "--manifest", path]


def _accuracy(desk: Any, _: pytest.MonkeyPatch) -> list[object]:
    manifest = read_manifest(MANIFEST)
    worse = manifest.compressed.model_copy(update={"accuracy": 0.1})
    write_manifest(desk.folder / "m.json", manifest.model_copy(update={"compressed": worse}))
    return ["compare", MANIFEST, desk.folder / "m.json", "--accuracy-tolerance", 0.5]


def _noisy(desk: Any, _: pytest.MonkeyPatch) -> list[object]:
    """Every row took twice as long: was it the machine?"""
    slow = re.sub(r'(_ns": )(\d+)', lambda found: found[1] + str(2 * int(found[2])), PROFILE.read_text())
    (desk.folder / "p.jsonl").write_text(slow)
    return ["compare", PROFILE, desk.folder / "p.jsonl"]


def _other(desk: Any, _: pytest.MonkeyPatch) -> list[object]:
    (desk.folder / "p.jsonl").write_text(PROFILE.read_text().replace('"version": 1', '"version": 99', 1))
    return ["compare", PROFILE, desk.folder / "p.jsonl"]


WAYS: dict[type[errors.LayerMergeError], Arguments] = {
    errors.UsageError: lambda desk, _: _job(desk, "--budget", "abc"),
    errors.InputError: lambda desk, _: ["compare", MANIFEST, PROFILE],
    errors.ModelError: lambda desk, _: ["inspect", "missing.py"],
    errors.DivergedError: lambda desk, _: _job(desk, "--lr", "1e30"),
    errors.TaskError: lambda desk, _: _job(desk, "--task", "/no/such.py"),
    errors.TableError: lambda desk, _: ["compare", desk.folder / "task.py", PROFILE],
    errors.InfeasibleBudgetError: _tables,
    errors.ProofError: _proof,
    errors.VerificationError: _changed,
    errors.RuntimeNotAvailableError: lambda desk, _: _job(desk, "--device", "cuda:99"),
    errors.RegressionError: _accuracy,
    errors.InconclusiveError: _noisy,
    errors.IncompatibleError: _other,
}


def test_no_class_is_left_out() -> None:
    assert set(WAYS) == set(error_classes())


@pytest.mark.parametrize("kind", WAYS, ids=lambda kind: kind.__name__)
def test_an_error_is_one_line_and_its_code(
    kind: type[errors.LayerMergeError], run: Any, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[type] = []
    init = errors.LayerMergeError.__init__

    def noted(self: errors.LayerMergeError, *args: Any, **kwargs: Any) -> None:
        raised.append(type(self))
        init(self, *args, **kwargs)

    monkeypatch.setattr(errors.LayerMergeError, "__init__", noted)
    ran = run(*WAYS[kind](desk, monkeypatch))
    assert ran.code == int(kind.exit_code), ran.err
    assert kind in raised, f"{raised}: {ran.err}"
    assert len(re.findall("^error: ", ran.err, re.M)) == 1 and "Traceback" not in ran.err
