from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.objective import with_precision
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification


@pytest.mark.parametrize(
    ("precision", "device", "multiplies", "expected"),
    [
        ("auto", "cpu", True, "bf16"),
        ("auto", "cpu", False, "fp32"),
        ("auto", "cuda", True, "fp32"),
        ("fp32", "cpu", True, "fp32"),
        ("bf16", "cpu", False, "bf16"),
    ],
)
def test_auto_is_bf16_on_processors_that_multiply_in_it(
    monkeypatch: pytest.MonkeyPatch, precision: str, device: str, multiplies: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplies)
    recipe = Recipe(precision=precision, lr=0.3)  # type: ignore[arg-type]
    assert with_precision(recipe, torch.device(device)) == replace(recipe, precision=expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("multiplies", [True, False])
def test_a_run_of_auto_is_that_of_what_it_is_here(
    task: Classification,
    recipe: Recipe,
    make_model: Callable[[], nn.Module],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    multiplies: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplies)
    told, model = make_model(), make_model()
    fine_tune(told, task, replace(recipe, precision="bf16" if multiplies else "fp32"), checkpoint=tmp_path / "run")
    result = fine_tune(model, task, replace(recipe, precision="auto"), checkpoint=tmp_path / "run")
    assert result.resumed_at == result.steps  # the same run, and finished already
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), told.parameters(), strict=True))
