"""Rows: which setting stands for a method, its training, and what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from trt_layermerge.delivery.typed_onnx import typed_path, write_typed
from trt_layermerge.errors import InputError, LayerMergeError
from trt_layermerge.files import parse_json, read_bytes, write_json
from trt_layermerge.locks import exclusive
from trt_layermerge.network.device import CPU, move
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.process_group import Alone
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification

from .bench import Bench
from .contender import Rung
from .graphed import GraphedTraining
from .ladder import Ladder
from .registry import METHODS

Seed = int | None
"""Of a row's training; ``None`` where nothing is trained."""

LATENCY_SEEDS: tuple[Seed, ...] = (0, None)
"""Whose networks are written: latency depends on shapes alone, and INT8 is tried on one of them."""

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
        return bench.trained / "rows" / f"{self.method}-{self.budget:g}x-{_words(self.seed)}.json"


class MadeElsewhereError(Exception):
    """Another process makes the same network."""


class Maker:
    """Makes the rows of a network."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.ladder, self._waits = bench, Ladder(bench), False

    def settle(self, methods: Iterable[str], budgets: Sequence[float] | None = None) -> None:
        """Pick settings; several processes share the trials."""
        case = self.bench.case
        asked = [(budget, True) for budget in budgets or case.budgets]
        asked += [(budget, False) for budget in case.untrained if budget in (budgets or case.untrained)]
        for self._waits in (False, True):
            for method in methods:
                for budget, trained in asked:
                    with suppress(MadeElsewhereError):
                        self.answer(method, budget, trained=trained)

    def make_all(self, rows: Iterable[Row]) -> None:
        """Make rows; what another process is at is left to it for now, and seen to when all else is done."""
        later = []
        for row in rows:
            try:
                self.make(row)
            except MadeElsewhereError:
                later.append(row)
        self._waits = True
        for row in later:
            self.make(row)

    def make(self, row: Row) -> dict[str, Any]:
        """A row, read where it was made before.

        Raises:
            MadeElsewhereError: Another process is at it.
        """
        path = row.path(self.bench)
        if path.exists():
            return dict(parse_json(read_bytes(path)))
        method = METHODS[row.method]
        made = self._trained(row) if method.converts is None else self._converted(row, method.converts)
        found = {"method": row.method, "budget": row.budget, "seed": row.seed, **made}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
        print(f"{path.stem}: { ({key: made[key] for key in made if key != 'network'}) }", flush=True)
        return found

    def _trained(self, row: Row) -> dict[str, Any]:
        answer = self.answer(row.method, row.budget, trained=row.seed is not None)
        if answer is None:
            return {"unreachable": self.ladder.fastest(METHODS[row.method].settings)}
        setting, rung = answer
        return {
            "setting": setting,
            "network": rung.name,
            "predicted": rung.predicted and round(rung.predicted, 4),
            "aimed": self.ladder.speed(rung),
            "shape": self.ladder.shape(rung),
            **self._outcome(rung, row.seed),
        }

    def answer(self, method: str, budget: float, *, trained: bool = True) -> tuple[str, Rung] | None:
        """The setting of a method that loses least at a budget, and its network: after a short training, or untrained.

        Raises:
            MadeElsewhereError: Another process tries one of them.
        """
        settings = METHODS[method].settings
        answers = {one.setting: rung for one in settings if (rung := self.ladder.answer(one, budget)) is not None}
        if len({rung.name for rung in answers.values()}) < 2:
            return next(iter(answers.items()), None)
        return min(answers.items(), key=lambda one: self._trial(one[1], trained=trained))

    def _trial(self, rung: Rung, *, trained: bool) -> float:
        """Held-out loss after a short training, or none."""
        case, name = self.bench.case, rung.name if trained else f"{rung.name}-untrained"
        folder, recipe = self.bench.trained / "trials" / name, replace(case.recipe, steps=case.trial_steps, seed=0)
        path = folder / "loss.json"
        if not path.exists():
            with self._alone_in(folder):
                if not path.exists():
                    with self.bench.cost("trials"):
                        module = self.delivered(rung, recipe if trained else None, folder / "checkpoint")
                        loss = self.bench.held_out(module).loss
                    write_json(path, round(loss, 5))
                    (folder / "checkpoint").unlink(missing_ok=True)
        return float(parse_json(read_bytes(path)))

    def _outcome(self, rung: Rung, seed: Seed) -> dict[str, Any]:
        """What training a network gives; the same network is trained once, whichever rows ask for it."""
        folder = outcome_folder(self.bench, rung.name, seed)
        path = folder / "outcome.json"
        with self._alone_in(folder):
            if not path.exists():
                write_json(path, self._made(rung, seed, folder))
        return dict(parse_json(read_bytes(path)))

    @contextmanager
    def _alone_in(self, folder: Path) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(exclusive(folder, wait=self._waits))
            except InputError:
                raise MadeElsewhereError from None
            yield

    def _made(self, rung: Rung, seed: Seed, folder: Path) -> dict[str, Any]:
        began, wall = time.process_time(), time.monotonic()
        recipe = None if seed is None else replace(self.bench.case.recipe, seed=seed)
        module = self.delivered(rung, recipe, folder / "checkpoint")
        seconds, wall, held_out = time.process_time() - began, time.monotonic() - wall, self.bench.held_out(module)
        if seed in LATENCY_SEEDS:
            self.bench.write(module, folder / "network.onnx")
        return {
            "held_out_loss": round(held_out.loss, 5),
            "held_out_accuracy": round(held_out.accuracy, 5),
            "accuracy": round(self.bench.test(module), 5),
            "cpu_seconds": round(seconds, 1),
            "seconds": round(wall, 1),
            "trained_on": self.bench.trained_on,
        }

    def delivered(self, rung: Rung, recipe: Recipe | None, checkpoint: Path) -> nn.Module:
        """What a network is when it is trained, if it is."""
        bench, model = self.bench, (rung if recipe is None else rung.trainable).start(self.bench)
        if recipe is not None:
            recipe = rung.recipe(recipe)
            with bench.teacher(recipe.seed) as teacher:
                if bench.computes_on.type == "cuda" and not recipe.decouple:
                    given = getattr(bench.task, "given", bench.task)
                    assert isinstance(given, Classification)
                    GraphedTraining(model, teacher, given, recipe, bench.computes_on).run()
                    move(model, CPU)
                else:
                    fine_tune(
                        model, bench.task, recipe, checkpoint=checkpoint, teacher=teacher, progress=_said(),
                        group=Alone(bench.computes_on),
                    )  # fmt: skip
        return rung.finish(bench, model)

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
        accuracy = self.bench.test_engine(typed_path(onnx, "int8"), "int8")
        return {"network": f"{name}-int8", "setting": "", "accuracy": round(accuracy, 5), "cpu_seconds": 0.0}

    def _conversion_batches(self) -> list[Any]:
        parts = zip(*(values.split(CONVERSION_BATCH) for values in _joined(self.bench)), strict=True)
        return list(parts)


def outcome_folder(bench: Bench, network: str, seed: Seed) -> Path:
    """Where a trained network lies."""
    return bench.trained / "networks" / f"{network}-{_words(seed)}"


def rows_of(bench: Bench, methods: Sequence[str], budgets: Sequence[float] | None, seeds: int) -> Iterator[Row]:
    """The rows that are asked for, seed after seed; those without training last."""
    case = bench.case
    for seed in (*range(seeds), None):
        for budget in budgets or (case.untrained if seed is None else case.budgets):
            for method in methods:
                if METHODS[method].converts is not None and (
                    seed != 0 or (method == "int8" and budget != case.budgets[0])
                ):
                    continue  # of each network one; and there is one original
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
