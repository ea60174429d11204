"""A job from flat settings: one name for each, the same on the command line, in a TOML file and in Python.

The settings of estimators, methods and builders are the fields of their classes, those of other packages too; all
others are named in ``JobSettings``. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from trt_layermerge.delivery.delivery_signature import SigningKey
from trt_layermerge.errors import RuntimeNotAvailableError, UsageError, did_you_mean
from trt_layermerge.importance.estimators.base import Estimator
from trt_layermerge.importance.estimators.registry import DEFAULT_ESTIMATOR, estimators
from trt_layermerge.pipeline.job import Job
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.confidence import require_confidence
from trt_layermerge.planning.methods.registry import registered_methods
from trt_layermerge.resources.memory import MemoryLimit
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.builder_settings import BuilderSettings, SettingOption
from trt_layermerge.runtimes.registry import get_runtime, runtime_kind, runtime_kinds
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.recipes import read_recipe
from trt_layermerge.training.unlabelled.comparing import Comparing
from trt_layermerge.training.unlabelled.preprocessing import Preprocessing

K = TypeVar("K", bound=Estimator)

OF_RECIPE = {
    "epochs": "epochs",
    "lr": "lr",
    "weight_decay": "weight_decay",
    "warmup": "warmup",
    "distillation": "distillation",
    "temperature": "temperature",
    "clip_norm": "clip_norm",
    "precision_training": "precision",
    "decouple": "decouple",
    "seed": "seed",
}
"""Settings that are fields of a recipe, and which."""


class JobSettings(TypedDict, total=False):
    """The settings of a job, each with the name and the meaning of ``compress``'s option; none is needed.

    Beside them there are those that name their owner: ``gates_penalty`` of the estimator ``gates``, ``alpha`` of the
    method ``depth``, ``workspace`` of TensorRT's builder.
    """

    weights: str | Path | None
    input_shape: tuple[int, ...] | None
    max_kernel: int
    max_layers: int
    bottleneck_activations: bool
    batch: int
    runtime: str
    precision: str
    threads: int
    profiles: str | Path
    again: bool
    interval: float
    builds: int
    rebuilds: int
    task: str | Path | None
    resize: tuple[int, ...] | None
    crop: tuple[int, ...] | None
    scale: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    channels: str | None
    layout: str | None
    distances: Mapping[str, str] | Iterable[tuple[str, str]] | None
    metric: str | Path | None
    output: str | Path
    calibration: int
    held_out: int
    estimator: str
    device: str
    cpu_threads: int | None
    memory_limit: str | int | None
    method: str
    widths: str | None
    alpha: float | None
    budget: str | float | None
    speedup: float | None
    confidence: float | None
    refine: int
    finetune: bool
    recipe: str | Path | Recipe | None
    epochs: int | None
    lr: float | None
    weight_decay: float | None
    warmup: float | None
    distillation: float | None
    temperature: float | None
    clip_norm: float | None
    precision_training: str | None
    decouple: float | None
    seed: int | None
    fit_samples: int
    accept_worse: bool
    fleet: str | None
    also: str | None
    sign: SigningKey | None


def job_of(model: str | Path, **settings: Any) -> Job:
    """The job that settings say; those that are left out, or ``None``, are what ``Job`` has.

    Raises:
        UsageError: There is no such setting, one is empty or out of range, or some contradict each other.
        RuntimeNotAvailableError: ``also`` names a runtime that does not have the precision.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    _require_known(given)
    runtime = given.get("runtime", Job.runtime)
    build = {name: given[name] for name in ("threads", "precision") if name in given}
    try:
        options = BuildOptions(**build, settings=builder_settings(runtime, given))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if given.get("also") is not None:
        _require_also(given["also"], options.precision)
    job = Job(model=str(model), output=Path(given.get("output", DEFAULT_OUTPUT)))
    as_they_are: dict[str, Any] = {name: given[name] for name in _AS_THEY_ARE if name in given}
    paths: dict[str, Any] = {name: Path(given[name]) for name in ("weights", "task", "profiles") if name in given}
    return _sure_or_measured(
        replace(
            job,
            **as_they_are,
            **paths,
            memory_limit=MemoryLimit.parse(given["memory_limit"]) if "memory_limit" in given else None,
            key=given.get("sign"),
            comparing=_comparing(given),
            options=options,
            budget=_budget(given, job.budget),
            method_settings=method_settings(given),
            limits=_updated(job.limits, given),
            samples=_updated(job.samples, given),
            estimator=_estimator(given),
            recipe=_recipe(given),
            policy=_updated(job.policy, given | ({"relative_ci": given["interval"]} if "interval" in given else {})),
        )
    )


DEFAULT_OUTPUT = Path("engines/job")

_AS_THEY_ARE = (
    "input_shape",
    "runtime",
    "batch",
    "method",
    "confidence",
    "refine",
    "fit_samples",
    "device",
    "cpu_threads",
    "accept_worse",
    "fleet",
    "also",
)
"""Settings that are fields of a job of the same name and type."""


def _updated(value: Any, given: Mapping[str, Any]) -> Any:
    """A value with the fields that are given."""
    return replace(value, **{one.name: given[one.name] for one in fields(value) if one.name in given})


def _require_known(given: Mapping[str, Any]) -> None:
    known = {*JobSettings.__annotations__, *method_setting_names()}
    known |= {option.key for _, _, option, _ in builder_options()}
    known |= {setting_key(kind, field.name) for kind in estimators().values() for field in fields(kind)}
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"there is no setting {name!r}", hint=did_you_mean(name, known))
        if value == "":  # as a path, it would be the folder that the process is in
            raise UsageError(f"the setting {name!r} is empty", hint="give it a value, or leave it out")


def _sure_or_measured(job: Job) -> Job:
    if job.confidence is not None:
        require_confidence(job.confidence)
        if job.refine:
            raise UsageError(
                "--refine measures what --confidence estimates; pass one of them",
                hint="with --refine, the plan keeps the budget as its engine was measured",
            )
    return job


def _budget(given: Mapping[str, Any], default: Budget) -> Budget:
    budget, speedup = given.get("budget"), given.get("speedup")
    if budget is not None and speedup is not None:
        raise UsageError("--budget and --speedup say the same thing; pass one of them")
    return read_budget(budget, speedup) or default


def read_budget(budget: str | float | None, speedup: float | None) -> Budget | None:
    """The budget that is asked for; ``None`` where none is.

    Raises:
        UsageError: It cannot be.
    """
    if speedup is not None:
        return Budget.from_speedup(speedup)
    return None if budget is None else Budget.parse(str(budget))


def _estimator(given: Mapping[str, Any]) -> Estimator:
    # Settings of the others are read, too: one that is out of range is told, whatever the estimator.
    made = {name: made_from(kind, given) for name, kind in estimators().items()}
    name = given.get("estimator", DEFAULT_ESTIMATOR)
    if name not in made:
        raise UsageError(f"there is no estimator {name!r}", hint=did_you_mean(name, made))
    return made[name]


def setting_key(kind: type[Estimator], field: str) -> str:
    """The setting of a field of an estimator."""
    return kind.option(field).removeprefix("--").replace("-", "_")


def made_from(kind: type[K], given: Mapping[str, Any]) -> K:
    """The estimator that settings say; fields that they do not name keep their defaults.

    Raises:
        UsageError: One of them is out of range.
    """
    keys = {field.name: setting_key(kind, field.name) for field in fields(kind)}
    return kind(**{name: given[key] for name, key in keys.items() if given.get(key) is not None})


def method_setting_names() -> tuple[str, ...]:
    """Names of the settings of all methods, each once."""
    return tuple(dict.fromkeys(one.name for method in registered_methods() for one in method.settings))


def method_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of methods among those that are given, of whatever method they are."""
    return {name: given[name] for name in method_setting_names() if given.get(name) is not None}


def builder_options() -> list[tuple[str, type[BuilderSettings], SettingOption, list[str]]]:
    """Builder settings, each once: the field, the class that has it, its option, and the kinds of runtimes it is of."""
    found: dict[str, tuple[str, type[BuilderSettings], SettingOption, list[str]]] = {}
    for kind in runtime_kinds():
        for name, option in kind.settings.options().items():
            found.setdefault(option.name, (name, kind.settings, option, []))[3].append(kind.name)
    return list(found.values())


def builder_settings(runtime: str, given: Mapping[str, Any]) -> BuilderSettings:
    """What settings say to the builder of a runtime.

    Raises:
        UsageError: They say something that it has no use for; or there is no such runtime.
    """
    own = runtime_kind(runtime).settings
    for field, owner, option, users in builder_options():
        said = given.get(option.key) not in (None, getattr(owner(), field))
        if said and option.name not in [one.name for one in own.options().values()]:
            raise UsageError(
                f"{option.name} is for {' and '.join(users)}, and the runtime is {runtime}",
                hint=f"pass --runtime {users[0]}",
            )
    told = {field: given.get(option.key) for field, option in own.options().items()}
    return own(**{field: value for field, value in told.items() if value is not None})


def _comparing(given: Mapping[str, Any]) -> Comparing:
    """How samples without labels are prepared and outputs compared."""
    steps = {one.name: given[one.name] for one in fields(Preprocessing) if one.name in given}
    pairs = given.get("distances", ())
    pairs = pairs.items() if isinstance(pairs, Mapping) else pairs
    metric = given.get("metric")
    return Comparing(Preprocessing(**steps), tuple(pairs), None if metric is None else Path(metric))


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


def _recipe(given: Mapping[str, Any]) -> Recipe | None:
    """The recipe with what other settings say in its place; ``None`` where nothing is to be trained."""
    if not given.get("finetune", True):
        return None
    told = {field: given[name] for name, field in OF_RECIPE.items() if name in given}
    if "epochs" in told:
        told["steps"] = None
    from trt_layermerge.training.load_task import is_unlabelled  # it imports torch

    task = given.get("task")
    usual = "no-labels" if task is not None and is_unlabelled(Path(task)) else "default"
    recipe = given.get("recipe", usual)
    return replace(recipe if isinstance(recipe, Recipe) else read_recipe(str(recipe)), **told)
