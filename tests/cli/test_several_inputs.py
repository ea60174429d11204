"""A network of several inputs on the command line: one that takes images and time steps, and predicts noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import DELIVERED

ASSETS = Path(__file__).parents[1] / "pipeline" / "assets"


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    folder = tmp_path_factory.mktemp("job")
    given = [f"{ASSETS / 'denoiser.py'}:denoiser", "--task", f"{ASSETS / 'denoise.py'}:continuous"]
    given += ["--output", folder / "out", "--profiles", folder / "profiles", "--max-kernel", 5, "--batch", 4]
    return [*given, "--calibration", 32, "--held-out", 32]


@pytest.fixture(scope="module")
def job(arguments: list[object]) -> list[object]:
    """By the recipe of DDPM, for one epoch."""
    recipe = ["--recipe", "ddpm-cifar10", "--epochs", 1]
    return [*arguments, *recipe, "--fit-samples", 32, "--budget", 0.95, "--method", "layermerge"]


def test_a_job_is_foretold_done_and_verified(run: Any, arguments: list[object], job: list[object]) -> None:
    measures = ["--method", "layermerge", "--estimator", "product"]
    foretold = run("importance", *arguments, *measures, "--dry-run", "--json")
    assert foretold.code == 0 and foretold.json["to_measure"] >= 4, foretold.err
    assert run("importance", *arguments, *measures, "--all").code == 0
    stages = run("compress", *job, "--estimator", "product", "--dry-run", "--json").json["stages"]
    assert "at most 0 choices" in [stage["what"] for stage in stages]
    ran = run("compress", *job, "--estimator", "product", "--json")
    assert ran.code in DELIVERED, ran.err
    assert ran.json["metric"] == "minus MSE" and ran.json["original"]["accuracy"] < 0
    assert "test minus MSE" in ran.err and "accuracy" not in ran.err
    verified = run("verify", "--manifest", ran.json["manifest"], "--json")
    assert verified.code == 0 and verified.json["samples"] == 32 and verified.json["engine_error"] < 1e-4


def test_what_is_no_logit_is_not_distilled(run: Any, arguments: list[object]) -> None:
    ran = run("compress", *arguments)
    assert ran.code == 2 and "are no logits" in ran.err and "--recipe ddpm-cifar10" in ran.err
    assert "Traceback" not in ran.err


def test_time_steps_of_another_kind_are_named(run: Any, arguments: list[object]) -> None:
    whole = [f"{ASSETS / 'denoise.py'}:task" if given == arguments[2] else given for given in arguments]
    ran = run("importance", *whole)
    assert ran.code == 3 and "'timestep' of torch.int64; a network takes real numbers" in ran.err
