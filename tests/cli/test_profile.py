"""``profile`` as a user meets it: several networks, what is left, what is stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
    ran = run("profile", *models, *places, "--json").json
    assert ran["measured"] == ran["rows"] == looked.json["to_measure"] and ran["left"] == 0 and ran["seconds"] >= 0
    assert [one["missing"] for one in ran["networks"]] == [0, 0]
    assert run("profile", *reversed(models), *places, "--json").json["measured"] == 0


def test_one_checkpoint_is_of_one_network(run: Any, models: list[Path], places: list[object]) -> None:
    ran = run("profile", *models, *places, "--weights", "weights.safetensors")
    assert ran.code == 2 and "there are 2" in ran.err and "leave it out" in ran.err


def test_a_configuration_names_the_model_where_none_is_given(run: Any, desk: Any, places: list[object]) -> None:
    (desk.folder / "c.toml").write_text(f'model = "{desk.folder / "model.py"}"\nbatch = 2\n')
    ran = run("profile", "--config", desk.folder / "c.toml", *places, "--dry-run", "--json")
    assert ran.code == 0 and [one["model"] for one in ran.json["networks"]] == [str(desk.folder / "model.py")]
    assert run("profile", *places).code == 2
