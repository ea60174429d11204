from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.blocks.limits import Limits
from trt_layermerge.importance.estimators.base import Samples
from trt_layermerge.importance.estimators.finetune import Finetune
from trt_layermerge.importance.estimators.gates import Gates
from trt_layermerge.importance.estimators.product import Product
from trt_layermerge.merging.reconstruction import PAPERS, Strength
from trt_layermerge.pipeline.job import Job
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.methods.depth import Depth
from trt_layermerge.training.recipe import Recipe

JOB = Job(model="m", output=Path("out"))
DEVICE: dict[str, Any] = {"device": "cpu", "threads": 1}
PLAN = {
    "model": "n",
    "task": Path("t.py"),
    "batch": 9,
    "budget": Budget.parse("0.5"),
    "method": "layermerge",
    "confidence": 0.95,
    "refine": 3,
    "limits": Limits(3, 2),
    "samples": Samples(1, 2),
    "estimator": Product(),
}
TRAINING = {"fit_samples": 1, "recipe": Recipe(epochs=9)}
NEITHER = {"device": "cpu", "output": Path("elsewhere"), "profiles": Path("elsewhere"), "weights": Path("same.pt")}


@pytest.mark.parametrize("field", PLAN | TRAINING | NEITHER)
def test_the_fingerprint_tells_what_decides_the_plan(field: str) -> None:
    changed = replace(JOB, **{field: (PLAN | TRAINING | NEITHER)[field]})
    assert (changed.fingerprint("w", DEVICE) == JOB.fingerprint("w", DEVICE)) == (field not in PLAN)
    assert (changed.training_name("p") == JOB.training_name("p")) == (field not in TRAINING)


@pytest.mark.parametrize(("one", "other"), [(Finetune(), Finetune(lr=0.5)), (Gates(), Gates(penalty=0.5))])
def test_how_an_estimator_trains_counts(one: Any, other: Any) -> None:
    fingerprints = [replace(JOB, estimator=estimator).fingerprint("w", DEVICE) for estimator in (one, other)]
    assert fingerprints[0] != fingerprints[1]


def test_which_activations_are_offered_decides_the_plan() -> None:
    offered = replace(JOB, limits=Limits(bottleneck_activations=True))
    assert offered.fingerprint("w", DEVICE) != JOB.fingerprint("w", DEVICE)


def test_the_papers_methods_know_no_fits() -> None:
    assert replace(JOB, recipe=None).strength == Strength()
    assert JOB.strength == Strength(trains=True)
    assert replace(JOB, method="layermerge").strength == PAPERS


def test_settings_of_the_method_decide_the_plan_where_they_are_given() -> None:
    depth = replace(JOB, method="depth")
    weighted = replace(depth, method_settings={"alpha": 0.5})
    assert weighted.planner == Depth(alpha=0.5) and depth.planner == Depth()
    assert weighted.fingerprint("w", DEVICE) != depth.fingerprint("w", DEVICE)
    unchanged = replace(depth, method_settings={"alpha": 0.0})
    assert unchanged.fingerprint("w", DEVICE) == depth.fingerprint("w", DEVICE)


def test_weights_device_and_plan_count_too() -> None:
    sized = JOB.fingerprint("w", DEVICE, [{"name": "input", "shape": (3, 8, 8)}])
    assert len({JOB.fingerprint("w", DEVICE), JOB.fingerprint("v", DEVICE), JOB.fingerprint("w", {}), sized}) == 4
    assert JOB.training_name("p") != JOB.training_name("q")


def test_how_often_training_is_saved_makes_no_other_run() -> None:
    assert JOB.recipe is not None
    assert replace(JOB, recipe=replace(JOB.recipe, checkpoint_seconds=1)).training_name("p") == JOB.training_name("p")
    assert replace(JOB, recipe=None).training_name("p") != JOB.training_name("p")
