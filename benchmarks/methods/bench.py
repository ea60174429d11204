"""What all rows of a network share: its folder, its profile, its importance table, its original, its teacher."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.verification import engine_outputs
from trt_layermerge.files import replacing, write_json
from trt_layermerge.importance.estimators.finetune import Finetune
from trt_layermerge.importance.evaluator import first
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.network.device import placed
from trt_layermerge.network.inputs import Values, batched_shapes, examples
from trt_layermerge.onnxfile import OPSET
from trt_layermerge.pipeline.correction_file import keep_correction, kept_correction
from trt_layermerge.pipeline.fidelity import validation_stage
from trt_layermerge.pipeline.fidelity_correction import find_correction
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_frontier import frontier_of, wanted_choices
from trt_layermerge.pipeline.measuring import (
    baseline_stage,
    importance_stage,
    importance_table,
    known_baseline,
    profile_stage,
)
from trt_layermerge.pipeline.session import Session, open_session
from trt_layermerge.planning.frontier import Frontier
from trt_layermerge.progress import Reporter, Step
from trt_layermerge.runtimes.base import BuildOptions, Engine
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.training.evaluate import Score, evaluate, score
from trt_layermerge.training.task import Task

from .cases import ROOT, Case
from .teacher import RememberedTeacher

RUNS = ROOT / "runs" / "methods"


@dataclass(frozen=True, eq=False)
class Bench:
    """A network on the bench.

    Attributes:
        name: Of its case.
        case: What it is.
        device: Where torch measures importance, solves fits, trains and scores on held-out data: ``cpu``, ``cuda`` or
            ``auto``. Engines, and with them test data, are the processor's.
    """

    name: str
    case: Case
    device: str = "cpu"
    _sessions: dict[tuple[str, str, bool], Session] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        """All that is kept of it."""
        return RUNS / self.name

    @property
    def trained(self) -> Path:
        """What came out of training: another recipe has another folder."""
        recipe = sha256(json.dumps(self.case.recipe.result_fields(), sort_keys=True).encode()).hexdigest()
        return self.folder / f"recipe-{recipe[:8]}"

    def session(self, method: str, widths: str = "", *, trained: bool = False) -> Session:
        """The job of a method: the same tables for all of them, or importances of choices that were each trained."""
        key = (method, widths, trained)
        if key not in self._sessions:
            case = self.case
            settings: Mapping[str, Any] = {"widths": widths} if widths else {}
            job = Job(
                model=case.model, weights=case.weights, task=case.task, output=self.folder, recipe=None,
                profiles=self.folder / "profiles", batch=case.batch, method=method, method_settings=settings,
                samples=case.samples, limits=case.limits, device=self.device,
            )  # fmt: skip
            if trained:
                job = replace(job, output=self.folder / "trained-choices", estimator=Finetune())
            self._sessions[key] = open_session(job)
        return self._sessions[key]

    @property
    def with_trained_choices(self) -> list[Session]:
        """The jobs whose importances are of choices that were each trained."""
        return [self.session(method, trained=True) for method in ("layermerge", "joint") * self.case.trained_choices]

    def frontier(self, session: Session) -> Frontier:
        """All best plans of a method."""
        return frontier_of(session, baseline_stage(self.widest, Reporter()), importance_table(session))

    def profile(self) -> None:
        """Measure all latencies that plans rest on, and what is systematic in their sums; on a quiet machine."""
        with self.cost("profile"):
            session, plans = self.widest, self.case.validated
            sure = not plans or known_baseline(session) is not None or kept_correction(session) is not None
            profile_stage(session, reporter())
            baseline_stage(session, reporter())
            if not sure:
                found = find_correction(validation_stage(session, plans, reporter()))
                print(f"{self.name}: {found}", flush=True)
                keep_correction(session, found)

    def importance(self, also: Iterable[Choice] = ()) -> None:
        """Measure what choices do to the network, for all methods that plan; and what others want to know."""
        with self.cost("importance"):
            for session in (self.widest, self.session("layermerge"), *self.with_trained_choices):
                importance_stage(session, reporter(), wanted_choices(session))
            importance_stage(self.widest, reporter(), also)

    @property
    def widest(self) -> Session:
        """With every choice there is."""
        return self.session("joint", self.case.widths[0])

    @property
    def task(self) -> Task:
        """The data."""
        return self.widest.require_task()

    def calibration(self, images: int) -> list[Values]:
        """Inputs that fits may use."""
        return [inputs for inputs, _ in first(self.task.calibration_batches(), images)]

    @cached_property
    def original(self) -> Path:
        """The original as ONNX."""
        return self.widest.original

    @property
    def computes_on(self) -> torch.device:
        """Where torch does what takes long."""
        return self.widest.computes_on

    @property
    def trained_on(self) -> str:
        """The same for people."""
        device = self.computes_on
        return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"

    @contextmanager
    def teacher(self, seed: int) -> Iterator[nn.Module]:
        """The original; where it would take long, it is asked once what it has to say of each batch."""
        original = fold_norms(self.widest.network.module)
        if self.computes_on.type != "cpu":
            yield original
            return
        remembering = RememberedTeacher(original, self.folder / f"teacher-{seed}.safetensors")
        try:
            yield remembering
        finally:
            remembering.keep()

    def write(self, module: nn.Module, path: Path) -> None:
        """A network whose norms are folded as ONNX."""
        path.parent.mkdir(parents=True, exist_ok=True)
        export_onnx(module, self.widest.network.inputs, path)

    def sketch(self, module: nn.Module, path: Path) -> None:
        """The same for its latency alone, by torch's older exporter, which takes a tenth of the time."""
        path.parent.mkdir(parents=True, exist_ok=True)
        inputs = self.widest.network.inputs
        names = [item.name for item in inputs]
        given = examples(inputs, batch=self.case.batch)
        with replacing(path) as neighbour, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(module, given, str(neighbour), dynamo=False, input_names=names, opset_version=OPSET)

    def built(self, path: Path, precision: str = "fp32") -> Engine:
        """An engine of a network, for one thread."""
        shapes = batched_shapes(self.widest.network.inputs, self.case.batch)
        return get_runtime("onnxruntime").build(path, BuildOptions(precision=precision), shapes)

    def held_out(self, module: nn.Module) -> Score:
        """How good a network is on the held-out data."""
        with placed(module, self.computes_on):
            return evaluate(module, self.task.held_out_batches(), self.task)

    def test(self, module: nn.Module) -> float:
        """Accuracy of a network on the test data."""
        with placed(module, self.computes_on):
            return evaluate(module, self.task.test_batches(), self.task).accuracy

    def test_engine(self, path: Path, precision: str) -> float:
        """The same of an engine."""
        return score(engine_outputs(self.built(path, precision), self.task.test_batches()), self.task).accuracy

    @contextmanager
    def cost(self, name: str) -> Iterator[None]:
        """Keep how much of the processor the first call took, in s; a call that goes on adds to it."""
        path, began = self.folder / "costs.json", time.process_time()
        try:
            yield
        finally:
            known = json.loads(path.read_bytes()) if path.exists() else {}
            write_json(path, known | {name: round(known.get(name, 0.0) + time.process_time() - began, 1)})


def reporter() -> Reporter:
    """Says on one line when a stage has ended."""

    def say(step: Step) -> None:
        if step.finished:
            print(f"{step.stage}: {step.seconds:.0f} s", flush=True)

    return Reporter(say)


def one_thread() -> None:
    """Compute on one thread, so that the same command gives the same bits anywhere; on a GPU in float32, as here."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
