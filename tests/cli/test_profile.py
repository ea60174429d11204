"""``profile`` as a user meets it: several networks, what is left, what is stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.cli.conftest import Desk, _desk
from trt_layermerge import api
from trt_layermerge.latency.profile import Profile
from trt_layermerge.pipeline.fidelity_correction import PlanTiming

ELSEWHERE = ("--runtime", "estimate:rtx-2080-ti", "--max-layers", 2, "--max-kernel", 5)


@pytest.fixture
def models(desk: Any) -> list[Path]:
    """Two networks that have most of their operations in common."""
    first, second = desk.folder / "model.py", desk.folder / "strided.py"
    second.write_text(first.read_text().replace("stride=2", "stride=4"))
    return [first, second]


@pytest.fixture
def places(desk: Any) -> list[object]:
    return [*ELSEWHERE, "--output", desk.folder / "out", "--profiles", desk.folder / "profiles"]


def test_many_networks_fill_one_table(run: Any, desk: Any, models: list[Path], places: list[object]) -> None:
    looked = run("profile", *models, *places, "--dry-run", "--json")
    assert looked.code == 0 and not (desk.folder / "profiles").exists(), looked.err
    first, second = looked.json["networks"]
    assert first.keys() == {"model", "operations", "missing"} and first["model"] == str(models[0])
    assert max(first["missing"], second["missing"]) < looked.json["to_measure"] < first["missing"] + second["missing"]
    assert f"{models[1]}: {second['missing']} of {second['operations']} operations to measure\n" in (
        run("profile", *models, *places, "--dry-run").out
    )
    stopped = run("profile", *models, *places, "--max-minutes", 0, "--json").json
    assert (stopped["measured"], stopped["left"], stopped["rows"]) == (0, looked.json["to_measure"], 0)
    assert "are left, for the time was up" in run("profile", *models, *places, "--max-minutes", 0).out
    ran = run("profile", *models, *places, "--builds", 2, "--interval", "1%", "--json").json
    (path,) = (desk.folder / "profiles").rglob("*.jsonl")
    assert all(row.timing is not None and row.timing.builds == 2 for row in Profile.read(path))
    assert ran["measured"] == ran["rows"] == looked.json["to_measure"] and ran["left"] == 0 and ran["seconds"] >= 0
    assert [one["missing"] for one in ran["networks"]] == [0, 0]
    assert run("profile", *reversed(models), *places, "--json").json["measured"] == 0


def test_nothing_is_left_where_only_measuring_tells_which_widths_pay(
    run: Any, models: list[Path], places: list[object]
) -> None:
    dry = run("profile", models[0], *places, "--widths", "1.0,0.5", "--dry-run", "--json").json
    ran = run("profile", models[0], *places, "--widths", "1.0,0.5", "--json").json
    assert ran["measured"] == ran["rows"] >= dry["to_measure"] and ran["left"] == 0


def test_one_checkpoint_is_of_one_network(run: Any, models: list[Path], places: list[object]) -> None:
    ran = run("profile", *models, *places, "--weights", "weights.safetensors")
    assert ran.code == 2 and "there are 2" in ran.err and "leave it out" in ran.err


def test_a_configuration_names_the_model_where_none_is_given(run: Any, desk: Any, places: list[object]) -> None:
    (desk.folder / "c.toml").write_text(f'model = "{desk.folder / "model.py"}"\nbatch = 2\n')
    ran = run("profile", "--config", desk.folder / "c.toml", *places, "--dry-run", "--json")
    assert ran.code == 0 and [one["model"] for one in ran.json["networks"]] == [str(desk.folder / "model.py")]
    assert run("profile", *places).code == 2


@pytest.fixture
def filled(run: Any, desk: Any, models: list[Path], places: list[object]) -> Path:
    assert run("profile", models[0], *places).code == 0
    (path,) = (desk.folder / "profiles").rglob("*.jsonl")
    return path  # type: ignore[no-any-return]


def test_what_ci_reads_is_written(run: Any, desk: Any, models: list[Path], places: list[object]) -> None:
    names = {"--summary": "ci/s.md", "--junit": "ci/j.xml", "--benchmark-json": "ci/b.json"}
    files = [part for option, name in names.items() for part in (option, desk.folder / name)]
    ran = run("profile", models[0], *places, *files, "--json")
    assert ran.code == 0, ran.err
    suite = ElementTree.parse(desk.folder / "ci/j.xml").getroot()[0]
    assert suite.attrib["tests"] == str(ran.json["rows"]) and suite.attrib["failures"] == "0"
    assert suite.attrib["skipped"] == str(ran.json["degraded"] + ran.json["failed"])
    assert len(json.loads((desk.folder / "ci/b.json").read_text())) == ran.json["rows"]
    text = (desk.folder / "ci/s.md").read_text()
    assert "SIMULATED" in text and f"{models[0].name}" in text.replace("&#95;", "_")
    assert run("profile", models[0], *places, *files).code == 0
    assert len((desk.folder / "ci/s.md").read_text()) > len(text), "a summary is appended, as a step's has to be"


def test_files_that_cannot_be_written_are_refused_first(run: Any, models: list[Path], places: list[object]) -> None:
    ran = run("profile", models[0], *places, "--junit", models[0] / "j.xml")
    assert ran.code == 3 and ran.out == "" and "model.py" in ran.err


def test_show_tells_the_device_and_the_slowest_rows(run: Any, filled: Path) -> None:
    shown, whole = run("profile", "show", filled), run("profile", "show", filled, "--json").json
    assert shown.code == 0 and "RTX 2080 Ti" in shown.out and f"{whole['rows']}: " in shown.out
    medians = [row["timing"]["median_ns"] for row in whole["slowest"]]
    assert len(medians) == whole["rows"] and medians == sorted(medians, reverse=True)
    assert whole["slowest"][0]["signature"] in shown.out
    assert whole["slowest"][-1]["signature"] in run("profile", "show", filled, "--all").out
    assert run("profile", "show", filled.parent / "none.jsonl").code == 3


def test_merge_joins_shards_and_overwrites_nothing_else(run: Any, filled: Path, tmp_path: Path) -> None:
    key, *rows = filled.read_text().splitlines(keepends=True)
    shards = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    for path, part in zip(shards, (rows[:3], rows[2:]), strict=True):
        path.write_text(key + "".join(part))
    ran = run("profile", "merge", *shards, "--output", tmp_path / "whole.jsonl")
    assert ran.code == 0 and (tmp_path / "whole.jsonl").read_text() == filled.read_text(), ran.err
    refused = run("profile", "merge", *shards, "--output", filled)
    assert refused.code == 2 and "not among what is merged" in refused.err
    assert run("profile", "merge", *shards, "--output", shards[0]).code == 0
    assert shards[0].read_text() == filled.read_text()
    shards[1].write_text(key.replace('"threads": 1', '"threads": 2') + rows[0])
    assert run("profile", "merge", *shards, "--output", tmp_path / "no.jsonl").code == 9
    assert not (tmp_path / "no.jsonl").exists()


def test_export_writes_a_row_an_operation(run: Any, filled: Path, tmp_path: Path) -> None:
    printed = run("profile", "export", filled, "--csv", "-")
    assert printed.code == 0 and len(printed.out.splitlines()) == len(filled.read_text().splitlines())
    assert run("profile", "export", filled, "--csv", tmp_path / "out" / "t.csv").code == 0
    assert (tmp_path / "out" / "t.csv").read_text() == printed.out
    assert run("profile", "export", filled).code == 2


def test_validate_compares_predictions_with_engines(run: Any, models: list[Path], places: list[object]) -> None:
    ran = run("profile", "validate", models[0], *places, "--plans", 3, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["simulated"] is True and 1 < len(ran.json["plans"]) <= 3
    assert ran.json["plans"][0].keys() == {
        "predicted",
        "measured",
        "measured_ns",
        "removed",
        "doubt",
        "weights",
        "error",
    }
    assert ran.json["errors"]["median"] < 0.1 and ran.json["rank_correlation"] == pytest.approx(1.0)
    assert ran.json["correction"]["kind"] == "none", "three plans are too few to correct anything by"
    told = run("profile", "validate", models[0], *places, "--plans", 3, "--max-error", "50%")
    assert told.code == 0 and told.out.startswith("SIMULATED") and "rank correlation" in told.out


@pytest.mark.parametrize(
    ("doubt", "tolerance", "code", "words"),
    [
        (0.001, "5%", 5, "the median error of 10 predicted latencies is 10.1%, more than 5.0%"),
        (0.001, "12%", 0, ""),
        (0.07, "5%", 8, "measured to within 7.0%, and errors of 5.0% are asked for"),
    ],
)
def test_validate_fails_where_errors_are_large_and_says_so_where_noise_is(
    run: Any,
    models: list[Path],
    places: list[object],
    monkeypatch: pytest.MonkeyPatch,
    doubt: float,
    tolerance: str,
    code: int,
    words: str,
) -> None:
    timed = [
        PlanTiming(share, (1 + (-1) ** number / 10) * share, 1000, 0.5, doubt)
        for number, share in enumerate(np.linspace(0.3, 0.9, 10))
    ]
    monkeypatch.setattr(api, "validation_stage", lambda *_: timed)
    ran = run("profile", "validate", models[0], *places, "--max-error", tolerance)
    assert ran.code == code and words in ran.err and "median 10.1%" in ran.out, ran.err
    assert "nothing systematic" in ran.out


@pytest.fixture(scope="module")
def valued(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A small job whose importance is measured, all of it."""
    desk = _desk(tmp_path_factory.mktemp("valued"))
    assert run("importance", *desk.stage, *ELSEWHERE[:2], "--all").code == 0
    return desk


def test_what_validate_corrects_plans_are_corrected_by(run: Any, valued: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def latencies() -> tuple[list[float], float]:
        ran = run("solve", *valued.stage, *ELSEWHERE[:2], "--frontier", "--budget", "1.0", "--json")
        assert ran.code == 0, ran.err
        return [point["latency_ms"] for point in ran.json["frontier"]], ran.json["original_ms"]

    assert run("profile", *valued.stage, *ELSEWHERE[:2]).code == 0
    before, original = latencies()
    for saved in (0.2, 0.0):  # a correction, and none any more
        timed = [PlanTiming(one, one + saved * (1 - one), 1000, 0.0) for one in map(float, np.linspace(0.3, 0.9, 10))]
        monkeypatch.setattr(api, "validation_stage", lambda *_, timed=timed: timed)
        told = run("profile", "validate", *valued.stage, *ELSEWHERE[:2], "--max-error", "1%")
        assert told.code == 0 and ("solve and compress correct their plans" in told.out) == (saved > 0), told.err
        expected = [one + saved * (original - one) for one in before]
        assert latencies()[0] == pytest.approx(expected, rel=1e-3)
        planned = run("solve", *valued.stage, *ELSEWHERE[:2], "--budget", "0.95", "--json")
        assert planned.code == 0 and ("latencies are corrected" in planned.err) == (saved > 0)


def test_for_a_budget_less_is_measured_and_the_plan_is_the_same(run: Any, valued: Desk, tmp_path: Path) -> None:
    elsewhere = [*valued.stage, *ELSEWHERE[:2], "--max-layers", 4, "--profiles", tmp_path / "profiles"]
    ran = run("importance", *elsewhere, "--all")
    assert ran.code == 0, ran.err
    found = run("profile", *elsewhere, "--for-budget", "0.8", "--json")
    assert found.code == 0, found.err
    about = found.json["for_budget"]
    assert about["settled"] and about["held"] <= about["bounded"]
    assert found.json["measured"] + about["unmeasured"] == about["wanted"] and about["unmeasured"] > 0
    solve = ("solve", *elsewhere, "--budget", "0.8", "--json")
    before = run(*solve).json
    assert before["latency_ms"] == about["plan"]["latency_ms"]
    told = run("profile", *elsewhere, "--for-budget", "0.8", "--importance", valued.folder / "out" / "importance.jsonl")
    assert told.code == 0 and "settled: " in told.out and "exact unless" in told.out, told.err
    assert run("profile", *elsewhere).code == 0
    assert run(*solve).json["blocks"] == before["blocks"]


def test_for_a_budget_importance_is_needed(run: Any, valued: Desk, models: list[Path], places: list[object]) -> None:
    ran = run("profile", models[0], *places, "--for-budget", "0.8")
    assert ran.code == 2 and "no importances to plan with" in ran.err and "--importance" in ran.err
    table = valued.folder / "out" / "importance.jsonl"
    (models[1].parent / "weights.safetensors").unlink()
    models[0].write_text(models[0].read_text().replace("manual_seed(0)", "manual_seed(1)"))
    other = run("profile", models[0], *places, "--for-budget", "0.8", "--importance", table)
    assert other.code == 9 and "is of other weights" in other.err, other.err
    strange = run("profile", models[1], *places, "--for-budget", "0.8", "--importance", models[0])
    assert strange.code == 3
    for wrong in (["--prior", "t4"], ["--importance", table], ["--for-budget", "fast"]):
        assert run("profile", models[0], *places, *wrong).code == 2
    assert run("profile", *models, *places, "--for-budget", "0.8").code == 2
    unknown = run("profile", *valued.stage, *ELSEWHERE[:2], "--for-budget", "0.8", "--prior", "gtx-1080")
    assert unknown.code == 2 and "rtx-2080-ti" in unknown.err
