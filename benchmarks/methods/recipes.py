"""Which training loses least, for all methods alike? Networks of several methods, trained by variants of the recipe.

    python -m benchmarks.methods.recipes --device cuda --seeds 3
    python -m benchmarks.methods.recipes --variants 'as it is' 'lr=0.08' 'average=0.99,lr=0.08' --steps 40

What is compared is held-out data alone; test data is not read. A variant is the recipe's fields that it changes;
``batch=64`` changes the task's, ``start=...`` what the fits of our plans make use of, and ``inner=1`` adds the error of
replaced blocks' outputs (ours alone). Several processes of the same command share the work: each waits for what the
others are at, so that its table is complete. What is finished is kept in runs/methods/NETWORK.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import fx, nn

from trt_layermerge.errors import DivergedError, InputError, LayerMergeError
from trt_layermerge.files import write_json
from trt_layermerge.locks import exclusive
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.reconstruction import PLAIN, Strength
from trt_layermerge.network.device import CPU, move
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification, Task
from trt_layermerge.training.unlabelled.inner_states import observe_blocks

from .bench import Bench, one_thread
from .cases import CASES
from .contender import Rung
from .graphed import GraphedTraining
from .planned import PlannedRung
from .registry import METHODS
from .rows import Maker

STARTS = {"papers": PLAIN, "layers": Strength(head=False), "head": Strength(layers=False)}
"""What the fits of a plan make use of; by default, of everything."""

VARIANTS = (
    "as it is",
    "lr=0.02", "lr=0.08", "lr=0.15", "lr=0.3",
    "distillation=0.5", "distillation=1.0", "temperature=2.0", "temperature=8.0",
    "average=0.99", "average=0.995,lr=0.15",
    "weight_decay=1e-4", "weight_decay=1e-3",
    "warmup=0.02", "batch=64", "batch=64,lr=0.02", "batch=32",
    "start=papers", "start=layers", "start=head", "start=papers,lr=0.08",
)  # fmt: skip
NETWORKS = ("joint:2.15", "joint-width:2.7", "torch-pruning:2.7:1")


@dataclass(frozen=True)
class Variant:
    """A way to train: what it changes, by name."""

    name: str

    @property
    def changes(self) -> dict[str, Any]:
        """Fields and their values."""
        if "=" not in self.name:
            return {}
        return {key: _value(text) for key, text in (part.split("=") for part in self.name.split(","))}

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe so changed."""
        return replace(
            recipe, **{key: one for key, one in self.changes.items() if key not in ("batch", "start", "inner")}
        )

    def task(self, task: Task) -> Classification:
        """The task so changed."""
        given = getattr(task, "given", task)
        assert isinstance(given, Classification)
        return replace(given, batch_size=self.changes.get("batch", given.batch_size))

    def rung(self, rung: Rung) -> Rung | None:
        """The network from another start; ``None`` where it has no such."""
        start = self.changes.get("start")
        if start is None:
            return rung
        if not isinstance(rung, PlannedRung) or rung.way != "merged":
            return None
        return replace(rung, name=f"{rung.name}-{start}", strength=STARTS[start])


@dataclass(frozen=True)
class Trial:
    """A network to train by a variant, and the folder of what comes out."""

    variant: Variant
    network: str
    rung: Rung
    seed: int
    place: Path

    @property
    def done(self) -> bool:
        """Whether its score is there."""
        return (self.place / "score.json").exists()


def train(bench: Bench, variants: list[Variant], networks: list[str], seeds: int, steps: int | None) -> None:
    """Train what is not done yet, seed after seed; what another process is at is waited for when all else is done.

    Where that one ends before it is done, it is trained here.
    """
    maker = Maker(bench)
    trials = list(_trials(maker, variants, networks, seeds, steps))
    for wait in (False, True):
        for trial in trials:
            if not trial.done:
                _train(maker, trial, steps, wait=wait)


def _trials(
    maker: Maker, variants: list[Variant], networks: list[str], seeds: int, steps: int | None
) -> Iterator[Trial]:
    folder = maker.bench.trained / "variants"
    rungs = {one: rung for one in networks if (rung := _rung(maker, one)) is not None}
    for seed in range(seeds):
        for variant in variants:
            for network, base in rungs.items():
                if (rung := variant.rung(base)) is not None:
                    name = f"{variant.name} {network} {steps or 'all'} {seed}".replace(" ", "_")
                    yield Trial(variant, network, rung, seed, folder / name)


def _train(maker: Maker, trial: Trial, steps: int | None, *, wait: bool) -> None:
    """Train it, unless another process is at it and is not waited for."""
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(trial.place, wait=wait))
        except InputError:  # of the lock alone: training has such errors, too
            return
        if trial.done:
            return
        recipe = replace(trial.variant.recipe(maker.bench.case.recipe), seed=trial.seed, steps=steps)
        try:
            score = _score(maker, trial.variant, trial.rung, recipe, trial.place / "checkpoint")
        except DivergedError as error:  # which is what a variant can do, and would do again
            score = {"seed": trial.seed, "diverged": error.message}
        write_json(trial.place / "score.json", {"variant": trial.variant.name, "network": trial.network} | score)
        print(f"{trial.place.name}: {score}", flush=True)


def _score(maker: Maker, variant: Variant, rung: Rung, recipe: Recipe, checkpoint: Path) -> dict[str, Any]:
    """Held-out data's word on a network; trained as rows are, but for what no recipe says."""
    began = time.monotonic()
    torch.manual_seed(recipe.seed)
    as_rows = variant.changes.keys().isdisjoint(("batch", "inner"))
    module = maker.delivered(rung, recipe, checkpoint) if as_rows else _graphed(maker.bench, variant, rung, recipe)
    seconds, score = time.monotonic() - began, maker.bench.held_out(module)
    checkpoint.unlink(missing_ok=True)
    return {"seed": recipe.seed, "loss": round(score.loss, 5), "accuracy": score.accuracy, "seconds": round(seconds, 1)}


def _graphed(bench: Bench, variant: Variant, rung: Rung, recipe: Recipe) -> nn.Module:
    """With a batch of another size, or inner states to learn from."""
    start = rung.trainable.start(bench)
    student, teacher, inner = start, fold_norms(bench.widest.network.module), variant.changes.get("inner", 0.0)
    if inner and isinstance(rung, PlannedRung):
        assert isinstance(start, fx.GraphModule)
        observed = observe_blocks(bench.widest.network, start, rung.plan.choices)
        student, teacher = observed.student, observed.teacher
    GraphedTraining(student, teacher, variant.task(bench.task), recipe, bench.computes_on, inner).run()
    move(start, CPU)
    return rung.finish(bench, start.eval())


def table(folder: Path) -> Iterator[str]:
    """The mean of each variant over the seeds, by network; the best by accuracy first."""
    scores: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.glob("*/score.json")):
        one = json.loads(path.read_bytes())
        scores[one["variant"]][one["network"]].append(one)
    networks = sorted({network for found in scores.values() for network in found})
    yield f"| variant | {' | '.join(networks)} |"
    yield "|---|" + "---|" * len(networks)
    for variant, found in sorted(scores.items(), key=lambda one: -_accuracy(one[1].values())):
        yield f"| {variant} | {' | '.join(_cell(found[one]) if one in found else '' for one in networks)} |"


def _accuracy(found: Iterable[list[dict[str, Any]]]) -> float:
    """The mean over networks; what diverged knows nothing."""
    return mean(mean(one.get("accuracy", 0.0) for one in of_network) for of_network in found)


def _cell(found: list[dict[str, Any]]) -> str:
    trained = [one for one in found if "diverged" not in one]
    lost = f"{len(found) - len(trained)} diverged" if len(trained) < len(found) else ""
    if not trained:
        return lost
    accuracy, loss = (mean(one[name] for one in trained) for name in ("accuracy", "loss"))
    return f"{accuracy:.2%}, {loss:.4f} ({len(trained)}){lost and f', {lost}'}"


def _value(text: str) -> Any:
    """A field's value as it is written: a number, or a word."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _rung(maker: Maker, text: str) -> Rung | None:
    method, budget, *which = text.split(":")
    return maker.ladder.answer(METHODS[method].settings[int(which[0]) if which else 0], float(budget))


def main() -> None:
    """Train, and print what is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CASES), default="resnet20", help="the network")
    parser.add_argument(
        "--networks", nargs="+", default=NETWORKS, help=f"METHOD:BUDGET[:SETTING]; of {', '.join(METHODS)}"
    )
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--steps", type=int, help="in place of the recipe's epochs")
    parser.add_argument("--device", default="cpu", help="where torch computes: cpu, cuda or auto")
    args = parser.parse_args()
    one_thread()
    bench = Bench(args.only, CASES[args.only], args.device)
    train(bench, [Variant(name) for name in args.variants], args.networks, args.seeds, args.steps)
    print("\n".join(table(bench.trained / "variants")))


if __name__ == "__main__":
    try:
        main()
    except LayerMergeError as error:
        sys.exit(f"error: {error}")
