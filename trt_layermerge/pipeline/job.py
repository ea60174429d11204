"""A job: everything that decides what comes out of it, and where its files lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trt_layermerge.blocks.limits import Limits
from trt_layermerge.delivery.delivery_signature import SigningKey
from trt_layermerge.importance.estimators.base import Estimator, Samples
from trt_layermerge.importance.estimators.registry import default_estimator
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.methods.base import Method
from trt_layermerge.planning.methods.registry import DEFAULT_METHOD, method_named
from trt_layermerge.resources.memory import MemoryLimit
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import DEFAULT_RUNTIME
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.unlabelled.comparing import Comparing

if TYPE_CHECKING:  # they import torch, which takes seconds, and options are made from the defaults here
    from trt_layermerge.blocks.cost import Setting
    from trt_layermerge.importance.filling import Estimation
    from trt_layermerge.merging.reconstruction import Strength

DEFAULT_BUDGET = Budget.parse("0.6")

SHARES = (1.0, 0.75, 0.5, 0.25)
"""Widths that are measured where all are asked for."""


@dataclass(frozen=True)
class Job:
    """The settings of a job.

    Attributes:
        model: Model spec.
        output: Folder for all files of the job but the profile.
        weights: Checkpoint of the model.
        input_shape: Shape of one sample, where neither model nor task tells.
        task: Task file, or a named task; needed from ``importance`` on.
        comparing: How samples of a task without labels are prepared, and outputs compared.
        profiles: Folder of the profiles.
        runtime: Name of the runtime.
        options: How engines are built.
        batch: Images at once.
        budget: Latency budget of the plan.
        method: Planning method.
        method_settings: Settings of it that are not the default ones, by name.
        confidence: Least probability of meeting the budget; ``None`` to go by measured latencies alone.
        refine: How many plans around the budget are executed and measured to decide between them; 0 for none.
        limits: Which candidates are looked at.
        samples: How much data importance looks at.
        estimator: How importance is measured.
        fit_samples: Images that the fits of the chosen plan are solved on.
        recipe: How to fine-tune; ``None`` for not at all.
        policy: How sure latencies have to be.
        device: Where torch computes: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. It decides nothing but the last digits,
            and so is part of no key.
        cpu_threads: How many threads torch computes on; ``None`` for all physical cores. Part of no key either.
        memory_limit: The most that this process may take for importance and fits; ``None`` for a share of what is
            free. Part of no key.
        accept_worse: Whether a network is delivered that is far worse than planned.
        fleet: Machines that measure, as ``Fleet.parse`` reads it; ``None`` for this one. Part of no key.
        also: Another runtime that the compressed network is built for, such as ``tensorrt-rtx:sm75``.
        command: The command line that asks for all this, for the report; part of no key.
        key: What the manifest is signed with; ``None`` for not at all.
    """

    model: str
    output: Path
    weights: Path | None = None
    input_shape: tuple[int, ...] | None = None
    task: Path | None = None
    comparing: Comparing = field(default_factory=Comparing)
    profiles: Path = Path("profiles")
    runtime: str = DEFAULT_RUNTIME
    options: BuildOptions = field(default_factory=BuildOptions)
    batch: int = 8
    budget: Budget = DEFAULT_BUDGET
    method: str = DEFAULT_METHOD
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    confidence: float | None = None
    refine: int = 0
    limits: Limits = field(default_factory=Limits)
    samples: Samples = field(default_factory=Samples)
    estimator: Estimator = field(default_factory=default_estimator)
    fit_samples: int = 2048
    recipe: Recipe | None = field(default_factory=lambda: Recipe(distillation=0.9))
    policy: MeasurementPolicy = field(default_factory=MeasurementPolicy)
    device: str = "auto"
    cpu_threads: int | None = None
    memory_limit: MemoryLimit | None = None
    accept_worse: bool = False
    fleet: str | None = None
    also: str | None = None
    command: str = ""
    key: SigningKey | None = None

    @property
    def setting(self) -> Setting:
        """What all signatures have in common."""
        from trt_layermerge.blocks.cost import Setting

        return Setting(self.batch, self.options.precision)

    @property
    def estimation(self) -> Estimation:
        """How importance is measured."""
        from trt_layermerge.importance.filling import Estimation

        return Estimation(self.estimator, self.samples, self.limits.max_kernel, self.memory)

    @property
    def memory(self) -> MemoryLimit:
        """The most that this process takes for importance and fits."""
        return self.memory_limit or MemoryLimit.usual()

    @property
    def planner(self) -> Method:
        """The planning method.

        Raises:
            UsageError: There is none of that name, or it has no such setting.
        """
        return method_named(self.method, self.method_settings)

    @property
    def shares(self) -> tuple[float, ...]:
        """Widths of channel groups that are measured, as shares of their channels; none where nothing is narrowed."""
        planner = self.planner
        shares = planner.shares if "widths" in self.method_settings or planner.narrows_unasked else ()
        return SHARES if shares is None else tuple(map(float, shares))

    @property
    def strength(self) -> Strength:
        """What the fits of a plan make use of: all that training bears, but of a method that knows no fits."""
        from trt_layermerge.merging.reconstruction import PAPERS, Strength

        return Strength(trains=self.recipe is not None) if self.planner.fits or self.planner.narrows else PAPERS

    @property
    def importance_file(self) -> Path:
        """The importance table."""
        return self.output / "importance.jsonl"

    @property
    def baseline_file(self) -> Path:
        """Measured end-to-end latency of the original."""
        return self.output / "baseline.json"

    @property
    def correction_file(self) -> Path:
        """What ``profile validate`` found to be systematic in predictions."""
        return self.output / "correction.json"

    @property
    def original_onnx(self) -> Path:
        """The original as ONNX."""
        return self.output / "original.onnx"

    @property
    def plan_file(self) -> Path:
        """The plan with its certificate."""
        return self.output / "plan.json"

    @property
    def final_policy(self) -> MeasurementPolicy:
        """How sure end-to-end latencies have to be: few engines are timed with more care than hundreds of blocks."""
        return replace(self.policy, relative_ci=0.01, min_samples=100, max_seconds=15.0)

    def refine_file(self, fingerprint: str) -> Path:
        """What was measured to decide between plans, for the settings of a fingerprint."""
        return self.output / f"refine-{fingerprint[:8]}.jsonl"

    def explore_file(self, fingerprint: str) -> Path:
        """What was measured to tell what budgets cost, likewise."""
        return self.output / f"explore-{fingerprint[:8]}.jsonl"

    def fingerprint(
        self, weights: str, device: dict[str, Any], inputs: Sequence[dict[str, Any]] = (), task_content: str = ""
    ) -> str:
        """Hash of all settings that decide the plan: those of the network, the data and the device.

        Args:
            weights: Hash of the network's state.
            device: What latencies depend on.
            inputs: What the network takes; the same weights serve images of any size.
            task_content: Hash of what the task is.
        """
        settings = {
            "model": self.model,
            "weights": weights,
            "task": str(self.task),
            "task_content": task_content,
            "device": device,
            "inputs": list(inputs),
            "batch": self.batch,
            "budget": str(self.budget),
            "method": self.method,
            "confidence": self.confidence,
            "refine": self.refine,
            "limits": asdict(self.limits),
            "samples": asdict(self.samples),
            "estimator": self.estimator.name,
            "tuning": self.estimator.in_words or None,
        }
        if changed := self.planner.changed:  # else the plans of jobs that knew no settings stay kept
            settings["method_settings"] = changed
        return _digest(settings)

    def training_name(self, plan: str) -> str:
        """What the files of a training run are called: another plan, start or recipe is another run.

        Args:
            plan: Hash of the plan file.
        """
        recipe = None if self.recipe is None else asdict(replace(self.recipe, checkpoint_seconds=0.0))
        return f"finetune-{_digest({'plan': plan, 'fit_samples': self.fit_samples, 'recipe': recipe})[:8]}"


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
