"""What a job leaves behind where nobody watches it: ``--log-json``, ``--verbose``, ``--quiet``."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.cli.logs import LOGGER
from trt_layermerge.errors import say


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_job_that_fails_leaves_more_than_its_last_message(run: Any, desk: Any, tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    arguments = ["compress", *desk.stage, "--no-finetune", "--budget", "0.001ms", "--log-json", log]
    assert run(*arguments).code == 4
    records = read(log)
    stages = [one["stage"] for one in records if one["event"] == "stage"]
    assert records[0]["event"] == "command" and records[0]["options"]["budget"] == "0.001ms"
    assert stages[:2] == ["profile", "baseline"] and all({"time", "level", "message"} <= set(one) for one in records)
    rows = [one for one in records if one["event"] == "step" and one["stage"] == "profile"]
    assert rows[-1]["done"] == rows[-1]["total"] == len(rows)
    assert [one["event"] for one in records if one["event"].startswith("stage-")][-1] in ("stage-end", "stage-stopped")
    last = records[-1]
    assert (last["event"], last["level"], last["exit_code"]) == ("error", "error", 4)
    assert last["error"] == "InfeasibleBudgetError" and "Traceback" in last["traceback"]
    assert last["command"].startswith("trt-layermerge compress ")
    run(*arguments)
    assert len(read(log)) > len(records), "a log is appended to"


def test_a_misspelt_option_is_in_the_log_too(run: Any, tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    ran = run("verify", "--log-json", log, "--manifesto", "x")
    assert ran.code == 2 and ran.err.count("No such option") == 1
    assert not log.exists() or read(log)[-1]["event"] == "usage"
    assert run("verify", "--log-json", log).code == 2
    assert (read(log)[-1]["event"], read(log)[-1]["exit_code"]) == ("usage", 2)


def test_a_log_that_cannot_be_written_is_told_before_anything_begins(run: Any, desk: Any, tmp_path: Path) -> None:
    ran = run("compress", *desk.job, "--log-json", tmp_path / "none" / "job.log")
    assert ran.code in (2, 3) and "job.log" in ran.err and not (desk.folder / "out").exists()


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device here is always full")
def test_a_log_whose_disk_is_full_is_told_and_ends_nothing(run: Any, desk: Any) -> None:
    ran = run("profile", *desk.stage, "--log-json", "/dev/full")
    assert ran.code == 0 and ran.err.count("/dev/full is written no further") == 1
    assert "Traceback" not in ran.err and "Logging error" not in ran.err


def test_people_see_as_much_as_they_ask_for(run: Any, desk: Any) -> None:
    plain = run("profile", *desk.stage)
    assert plain.err.startswith("measure latencies") and plain.err.count("\n") == 1
    assert run("profile", *desk.stage, "--quiet").err == ""
    verbose = run("profile", *desk.stage, "-v").err.splitlines()
    assert "profile begins" in verbose and verbose[-1].startswith("profile took")
    fresh = [*desk.stage, "--profiles", desk.folder / "fresh"]
    rows = run("profile", *fresh, "-vv").err.splitlines()
    assert any(line.startswith("profile: 1 of ") for line in rows)


def test_cautions_are_shown_once_unless_errors_alone_are_wanted(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from trt_layermerge.cli.commands import compare

    def careful(*_: object) -> None:
        for _ in range(2):
            say("look twice")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compare, "compare_files", careful)
    told = "warning: look twice\nerror: No space left on device\n"
    assert run("compare", "a", "b").err == told
    assert run("compare", "a", "b", "--quiet").err == told.splitlines(keepends=True)[1]


def test_nothing_is_left_behind_for_the_next_run(run: Any, tmp_path: Path) -> None:
    before = (LOGGER.level, list(LOGGER.handlers))
    run("compare", tmp_path / "a", tmp_path / "b", "-vv", "--log-json", tmp_path / "log")
    assert (LOGGER.level, LOGGER.handlers) == before and not logging.getLogger().isEnabledFor(logging.DEBUG)
