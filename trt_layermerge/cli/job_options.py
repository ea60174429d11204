"""The job that the options of a command make."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from trt_layermerge.blocks.candidates import Limits
from trt_layermerge.cli.command_line import command_line
from trt_layermerge.cli.from_fields import made_from
from trt_layermerge.cli.method_settings import given_settings
from trt_layermerge.cli.options import read_budget, read_settings
from trt_layermerge.errors import RuntimeNotAvailableError, UsageError
from trt_layermerge.importance.estimators.base import Samples
from trt_layermerge.importance.estimators.registry import DEFAULT_ESTIMATOR, estimators
from trt_layermerge.pipeline.job import Job
from trt_layermerge.planning.confidence import require_confidence
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.training.load import is_unlabelled
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.recipes import read_recipe
from trt_layermerge.training.unlabelled.comparing import Comparing
from trt_layermerge.training.unlabelled.preprocessing import Preprocessing

OF_RECIPE = [
    "epochs",
    "lr",
    "weight_decay",
    "warmup",
    "distillation",
    "temperature",
    "clip_norm",
    "precision",
    "decouple",
    "seed",
]
"""Fields of a recipe that have options of their own."""


def make_job(**given: Any) -> Job:
    """A job from the options of a command; those that the command does not have keep their defaults.

    Raises:
        UsageError: Options are out of range, or contradict each other.
    """
    confidence, refine = given.get("confidence"), given.get("refine", 0)
    if confidence is not None:
        require_confidence(confidence)
        if refine:
            raise UsageError(
                "--refine measures what --confidence estimates; pass one of them",
                hint="with --refine, the plan keeps the budget as its engine was measured",
            )
    if given.get("also") is not None:
        _require_also(given["also"], given.get("precision", "fp32"))
    # Options of the others are read, too: one that is out of range is told, whatever the estimator.
    told = {name: made_from(kind, given) for name, kind in estimators().items()}
    known = Job(model=given["model"], output=given.get("output") or Path("engines/job"))
    return replace(
        known,
        weights=given.get("weights"),
        input_shape=given.get("input_shape"),
        task=given.get("task"),
        comparing=_comparing(given),
        profiles=given.get("profiles", known.profiles),
        runtime=given.get("runtime", known.runtime),
        options=BuildOptions(
            threads=given.get("threads", 1),
            precision=given.get("precision", "fp32"),
            settings=read_settings(given.get("runtime", known.runtime), given),
        ),
        batch=given["batch"],
        budget=read_budget(given.get("budget"), given.get("speedup")),
        method=given["method"],
        method_settings=given_settings(given),
        confidence=confidence,
        refine=refine,
        limits=Limits(given["max_kernel"], given["max_layers"], given["bottleneck_activations"]),
        samples=Samples(given.get("calibration", 512), given.get("held_out", 1024)),
        estimator=told[given.get("estimator", DEFAULT_ESTIMATOR)],
        fit_samples=given.get("fit_samples", known.fit_samples),
        recipe=_recipe(given),
        device=given.get("device", known.device),
        cpu_threads=given.get("cpu_threads"),
        also=given.get("also"),
        accept_worse=given.get("accept_worse", False),
        command=command_line(),
    )


def _comparing(given: dict[str, Any]) -> Comparing:
    """How samples without labels are prepared and outputs compared, as options say."""
    told = {field.name: given.get(field.name) for field in fields(Preprocessing)}
    steps = {name: value for name, value in told.items() if value is not None}
    return Comparing(Preprocessing(**steps), given.get("distances") or (), given.get("metric"))


def _require_also(name: str, precision: str) -> None:
    """See that there is such a runtime, and that it has the precision; one that is not here is told of at the end.

    Raises:
        UsageError: There is no such runtime.
        RuntimeNotAvailableError: It does not have the precision.
    """
    try:
        runtime = get_runtime(name)
    except RuntimeNotAvailableError:
        return
    runtime.require_precision(precision)


def _recipe(given: dict[str, Any]) -> Recipe | None:
    """The recipe of ``--recipe`` with what other options say in its place."""
    if not given.get("finetune"):
        return None
    names = {"precision": "precision_training"}
    options = {field: given.get(names.get(field, field)) for field in OF_RECIPE}
    told = {field: value for field, value in options.items() if value is not None}
    if "epochs" in told:
        told["steps"] = None
    task = given.get("task")
    usual = "no-labels" if task is not None and is_unlabelled(task) else "default"
    return replace(read_recipe(given.get("recipe") or usual), **told)
