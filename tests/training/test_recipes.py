"""Every shipped recipe is one, says where its numbers are from, and holds what its paper says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trt_layermerge.errors import ExitCode, UsageError
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.recipes import FOLDER, read_recipe, recipe_names

PAPERS = {
    "resnet34-imagenet": {"epochs": 90, "lr": 1.024, "label_smoothing": 0.1, "batch_size": 1024},
    "mobilenetv2-imagenet": {"epochs": 180, "lr": 0.05, "batch_size": 256},
    "mobilenetv2-1.4-imagenet": {"epochs": 180, "lr": 0.1},
    "ddpm-cifar10": {"steps": 100_000, "lr": 4e-4, "average": 0.9999, "optimizer": "adam", "clip_norm": 1.0},
    "vgg16-cifar10": {"batch_size": 128},
    "resnet56-cifar10": {"schedule": "step", "milestones": (0.5, 0.75)},
    "default": {"distillation": 0.9, "epochs": Recipe.epochs, "lr": Recipe.lr},
    "no-labels": {"optimizer": "adam", "fixed_norms": True, "distillation": 0.0},
}


def test_these_are_shipped() -> None:
    assert set(recipe_names()) == PAPERS.keys()


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_holds_its_numbers_and_their_sources(name: str) -> None:
    recipe = read_recipe(name)
    assert {field: getattr(recipe, field) for field in PAPERS[name]} == PAPERS[name]
    comments = "".join(line for line in (FOLDER / f"{name}.toml").read_text().splitlines() if line.startswith("#"))
    assert "ours" in comments.lower() or "our reading" in comments or "published" in comments
    assert (recipe.decouple > 0) == (name in ("vgg16-cifar10", "resnet56-cifar10"))


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('epochs = 3\nmilestones = [0.5]\nschedule = "step"\nlr = 1\n')
    assert read_recipe(str(file)) == Recipe(epochs=3, milestones=(0.5,), schedule="step", lr=1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch = 3", "epoch: Unexpected"),
        ("epochs = 2.5", "epochs: .*integer"),
        ("lr = '0.1'", "lr: .*number"),
        ("lr = -1", "lr is -1.0; it must be above 0"),
        ("lr = nan", "lr is nan"),
        ("lr = 2026-01-01", "lr: "),
        ("[section]\nlr = 1", "section: Unexpected"),
        ("lr 1", "cannot read the recipe"),
        ("precision = 'fp8'", "precision: .*'fp16'"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=rf"(?s)wrong\.toml.*{words}|{words}.*wrong\.toml") as caught:
        read_recipe(str(file))
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnet34-imagnet", "did you mean 'resnet34-imagenet'"), ("zzz", "there are ddpm"), ("../x", "there are")],
)
def test_an_unknown_name_is_refused_with_a_near_one(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"there is no recipe '{name}'(?s:.)*{hint}"):
        read_recipe(name)
    with pytest.raises(UsageError, match="cannot read the recipe"):
        read_recipe(f"{name}.toml")


def test_recipes_do_without_torch() -> None:
    code = "import sys, trt_layermerge.training.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
