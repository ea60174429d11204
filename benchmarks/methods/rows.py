"""Rows: which setting stands for a method, its training, and what came out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from trt_layermerge.delivery.typed_onnx import typed_path, write_typed
from trt_layermerge.errors import LayerMergeError
from trt_layermerge.files import parse_json, read_bytes, write_json
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.recipe import Recipe

from .bench import Bench
from .contender import Rung
from .ladder import Ladder
from .registry import METHODS

Seed = int | None
"""Of a row's training; ``None`` where nothing is trained."""

CONVERSION_IMAGES, CONVERSION_BATCH = 256, 16
"""That INT8 is calibrated on, as the tool does."""


@dataclass(frozen=True)
class Row:
    """A network, a method, a budget and a seed; what came out of it is in a file of that name."""

    method: str
    budget: float
    seed: Seed

    def path(self, bench: Bench) -> Path:
        """Its file."""
        return bench.folder / "rows" / f"{self.method}-{self.budget:g}x-{_words(self.seed)}.json"


class Maker:
    """Makes the rows of a network."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.ladder = bench, Ladder(bench)

    def make(self, row: Row) -> dict[str, Any]:
        """A row, read where it was made before."""
        path = row.path(self.bench)
        if path.exists():
            return dict(parse_json(read_bytes(path)))
        method = METHODS[row.method]
        made = self._trained(row) if method.converts is None else self._converted(row, method.converts)
        found = {"method": row.method, "budget": row.budget, "seed": row.seed, **made}
        path.parent.mkdir(exist_ok=True)
        write_json(path, found)
        print(f"{path.stem}: { ({key: made[key] for key in made if key != 'network'}) }", flush=True)
        return found

    def _trained(self, row: Row) -> dict[str, Any]:
        method = METHODS[row.method]
        answers = {one.setting: rung for one in method.settings if (rung := self.ladder.answer(one, row.budget))}
        if not answers:
            return {"unreachable": self.ladder.fastest(method.settings)}
        setting = next(one for one in self._by_trial(row.method) if one in answers)
        rung = answers[setting]
        return {
            "setting": setting,
            "network": rung.name,
            "predicted": rung.predicted and round(rung.predicted, 4),
            "aimed": self.ladder.speed(rung),
            **self._outcome(rung, row.seed),
        }

    def _by_trial(self, method: str) -> list[str]:
        """The settings of a method by held-out loss after a short training, those last that cannot be so fast."""
        settings, budget = METHODS[method].settings, self.bench.case.picked_at
        answers = {one.setting: self.ladder.answer(one, budget) for one in settings}
        if len({rung.name for rung in answers.values() if rung is not None}) < 2:
            return sorted(answers, key=lambda setting: answers[setting] is None)
        losses = {setting: math.inf if rung is None else self._trial(rung) for setting, rung in answers.items()}
        return sorted(losses, key=lambda setting: losses[setting])

    def _trial(self, rung: Rung) -> float:
        """Held-out loss after a short training."""
        path, case = self.bench.folder / "trials.json", self.bench.case
        known = dict(parse_json(read_bytes(path))) if path.exists() else {}
        if rung.name not in known:
            recipe = replace(case.recipe, steps=case.trial_steps, seed=0)
            with self.bench.cost("trials"):
                module = self._fine_tuned(rung, recipe, self.bench.folder / "trial.checkpoint.safetensors")
            known[rung.name] = round(self.bench.held_out(module).loss, 5)
            print(f"trial {rung.name}: {known[rung.name]}", flush=True)
            write_json(path, known)
            (self.bench.folder / "trial.checkpoint.safetensors").unlink()
        return float(known[rung.name])

    def _outcome(self, rung: Rung, seed: Seed) -> dict[str, Any]:
        """What training a network gives; the same network is trained once, whichever rows ask for it."""
        folder = outcome_folder(self.bench, rung.name, seed)
        path = folder / "outcome.json"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            began = time.process_time()
            if seed is None:
                module = rung.finish(self.bench, rung.start(self.bench))
            else:
                recipe = replace(self.bench.case.recipe, seed=seed)
                module = self._fine_tuned(rung, recipe, folder / "checkpoint.safetensors")
            seconds, held_out = time.process_time() - began, self.bench.held_out(module)
            self.bench.write(module, folder / "network.onnx")
            outcome = {
                "held_out_loss": round(held_out.loss, 5),
                "held_out_accuracy": round(held_out.accuracy, 5),
                "accuracy": round(self.bench.test(folder / "network.onnx"), 5),
                "cpu_seconds": round(seconds, 1),
            }
            write_json(path, outcome)
        return dict(parse_json(read_bytes(path)))

    def _fine_tuned(self, rung: Rung, recipe: Recipe, checkpoint: Path) -> nn.Module:
        model, teacher = rung.start(self.bench), self.bench.teacher(recipe.seed)
        try:
            fine_tune(
                model, self.bench.task, rung.recipe(recipe), checkpoint=checkpoint, teacher=teacher, progress=_said()
            )
        finally:
            teacher.keep()
        return rung.finish(self.bench, model)

    def _converted(self, row: Row, converts: str) -> dict[str, Any]:
        """The trained network of another method in INT8; its latency is what it is."""
        if converts:
            source = self.make(replace(row, method=converts))
            if "unreachable" in source:
                return {"unreachable": source["unreachable"]}
            name, onnx = source["network"], outcome_folder(self.bench, source["network"], row.seed) / "network.onnx"
        else:
            name, onnx = "original", self.bench.original
        try:
            write_typed(onnx, "int8", self._conversion_batches())
        except LayerMergeError as error:
            return {"network": f"{name}-int8", "failed": error.message}
        accuracy = self.bench.test(typed_path(onnx, "int8"), "int8")
        return {"network": f"{name}-int8", "setting": "", "accuracy": round(accuracy, 5), "cpu_seconds": 0.0}

    def _conversion_batches(self) -> list[Any]:
        parts = zip(*(values.split(CONVERSION_BATCH) for values in _joined(self.bench)), strict=True)
        return list(parts)


def onnx_of(bench: Bench, network: str, seed: Seed) -> tuple[Path, str]:
    """The file of a row's network, and its precision."""
    precision = "int8" if network.endswith("-int8") else "fp32"
    name = network.removesuffix("-int8")
    source = bench.original if name == "original" else outcome_folder(bench, name, seed) / "network.onnx"
    return typed_path(source, precision), precision


def outcome_folder(bench: Bench, network: str, seed: Seed) -> Path:
    """Where a trained network lies."""
    return bench.folder / "trained" / f"{network}-{_words(seed)}"


def rows_of(bench: Bench, methods: Sequence[str], budgets: Sequence[float] | None, seeds: int) -> Iterator[Row]:
    """The rows that are asked for, seed after seed; those without training last."""
    case = bench.case
    for seed in (*range(seeds), None):
        for budget in budgets or (case.untrained if seed is None else case.budgets):
            for method in methods:
                if method == "int8" and (budget, seed) != (case.budgets[0], 0):
                    continue  # there is one of it
                if seed is not None or budget in case.untrained:
                    yield Row(method, budget, seed)


def _joined(bench: Bench) -> tuple[Any, ...]:
    from trt_layermerge.network.inputs import joined

    return joined(bench.calibration(CONVERSION_IMAGES))


def _said() -> Callable[..., None]:
    """Says where a training is, twice a minute."""
    last = [time.monotonic()]

    def say(done: int, total: int, label: str, *, share: float | None = None) -> None:
        if time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            print(f"  step {done} of {total}, {label}", flush=True)

    return say


def _words(seed: Seed) -> str:
    return "untrained" if seed is None else f"seed-{seed}"
