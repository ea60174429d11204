"""Every way to make a network faster, at the same measured latency and with the same training: which loses least?

ResNet-20 on Fashion-MNIST. A row is a method at a speed-up: ours plan for it; what knows only how much it prunes
(Torch-Pruning, ``pip install torch-pruning==1.6.0``) is searched for the share whose engine just meets it. Then all
train alike: the same epochs, rate, distillation and seed. Nothing is chosen by the test data: it is read once a row.

Rows are kept in ``runs/methods``, and the same command goes on where it was stopped. Latencies are those of ONNX
Runtime on one thread, all networks and the original interleaved in one run at the end; so measure on a quiet machine.

    python benchmarks/methods.py [--speedup 2.15 2.7 3.5] [--only NAME ...] [--seeds N] [--epochs N]
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trt_layermerge.cli.show import screen
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.verification import engine_outputs
from trt_layermerge.files import write_json
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.network.inputs import Input, batched_shapes
from trt_layermerge.network.network import load_network, trace
from trt_layermerge.network.source import load_source
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.planning.budget import Budget
from trt_layermerge.runtimes.base import BuildOptions, Engine
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.training.evaluate import score
from trt_layermerge.training.load import load_task
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "fashion_mnist"
RUNS = ROOT / "runs" / "methods"
MODEL, WEIGHTS, TASK = f"{EXAMPLE / 'model.py'}:resnet20", EXAMPLE / "resnet20.safetensors", EXAMPLE / "task.py"
BATCH, RECIPE = 8, Recipe(lr=0.04, distillation=0.9)
SEARCHES = 7
"""Halvings of the share that is pruned: less than one hundredth of it is left."""

QUICK = MeasurementPolicy(relative_ci=0.02, max_seconds=2.0)
FINAL = MeasurementPolicy(relative_ci=0.01, min_samples=100, max_seconds=15.0)


@dataclass(frozen=True)
class Run:
    """One row: where its files lie, and how to train."""

    name: str
    speedup: float
    recipe: Recipe | None

    @property
    def folder(self) -> Path:
        """Its files."""
        trained = "untrained" if self.recipe is None else f"{self.recipe.epochs}-epochs-seed-{self.recipe.seed}"
        return RUNS / f"{self.name}-{self.speedup:g}x-{trained}"

    @property
    def onnx(self) -> Path:
        """The network that comes out."""
        return self.folder / "compressed.onnx"


Make = Callable[[Run], None]


def ours(**settings: Any) -> Make:
    """A plan of ours."""

    def make(run: Run) -> None:
        job = Job(
            model=MODEL, weights=WEIGHTS, task=TASK, output=run.folder, profiles=RUNS / "profiles", batch=BATCH,
            budget=Budget.parse(f"{1 / run.speedup:.4f}"), recipe=run.recipe, **settings,
        )  # fmt: skip
        for table in ("importance.jsonl", "baseline.json"):  # the same for every speed-up and seed
            share(RUNS / f"{run.name}-{table}", run.folder / table)
        with screen() as reporter:
            whole_job(open_session(job), reporter)
        for table in ("importance.jsonl", "baseline.json"):
            share(run.folder / table, RUNS / f"{run.name}-{table}")

    return make


def share(source: Path, target: Path) -> None:
    """Copy a file that is there."""
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())


def pruned(criterion: str, round_to: int) -> Make:
    """Torch-Pruning, the same share of every group, with one of its criteria."""

    def make(run: Run) -> None:
        wanted = RUNS / f"{run.name}-{run.speedup:g}x.pt"
        if not wanted.exists():
            torch.save(searched(criterion, round_to, run.speedup), wanted)
        model = torch.load(wanted, weights_only=False)
        if run.recipe is not None:
            network = load_network(MODEL, WEIGHTS)
            teacher, task = fold_norms(network.module), load_task(TASK)
            with screen() as reporter:
                reporter.stage(f"train {run.name}")
                checkpoint = run.folder / "checkpoint.safetensors"
                fine_tune(model, task, run.recipe, checkpoint=checkpoint, teacher=teacher, progress=reporter.progress)
        write(model, run.onnx)

    return make


def searched(criterion: str, round_to: int, speedup: float) -> nn.Module:
    """The network with the least pruned that is as fast as wanted; the fastest that was tried where none is."""
    original = built(_original())
    low, high = 0.0, 0.9
    best = prune(criterion, round_to, high)
    for _ in range(SEARCHES):
        middle = (low + high) / 2
        model = prune(criterion, round_to, middle)
        path = RUNS / "search.onnx"
        write(model, path)
        timings = compare({"original": original, "pruned": built(path)}, QUICK)
        if timings["original"].median_ns >= speedup * timings["pruned"].median_ns:
            high, best = middle, model
        else:
            low = middle
    return best


def prune(criterion: str, round_to: int, share: float) -> nn.Module:
    """The trained network without a share of the channels of each group, as Torch-Pruning's documentation has it."""
    import torch_pruning as tp

    torch.manual_seed(0)
    model, task = load_source(MODEL, WEIGHTS).module, load_task(TASK)
    inputs, targets = next(iter(task.calibration_batches()))
    given = inputs if isinstance(inputs, torch.Tensor) else inputs[0]
    importance = {
        "taylor": tp.importance.GroupTaylorImportance,
        "magnitude": tp.importance.GroupMagnitudeImportance,
        "bn-scale": tp.importance.BNScaleImportance,
    }[criterion]()
    heads = [part for part in model.modules() if isinstance(part, nn.Linear)]
    pruner = tp.pruner.BasePruner(
        model, given[:1], importance=importance, pruning_ratio=share, ignored_layers=heads, round_to=round_to
    )
    if criterion == "taylor":
        model.eval().zero_grad()
        task.loss(model(given), targets).backward()
    pruner.step()
    model.zero_grad()
    return model.eval()


def write(model: nn.Module, path: Path) -> None:
    """A module as ONNX, its norms folded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    network = trace("pruned", copy.deepcopy(model).eval(), inputs())
    export_onnx(fold_norms(network.module), network.inputs, path)


def inputs() -> tuple[Input, ...]:
    """What the network takes."""
    return (Input("x", (1, 28, 28)),)


def _original() -> Path:
    path = RUNS / "original.onnx"
    if not path.exists():
        write(load_source(MODEL, WEIGHTS).module, path)
    return path


def built(path: Path) -> Engine:
    """A network in ONNX Runtime, for one thread."""
    return get_runtime("onnxruntime").build(path, BuildOptions(), batched_shapes(inputs_of(path), BATCH))


def inputs_of(path: Path) -> tuple[Input, ...]:
    """The inputs of an ONNX file by their names there."""
    import onnx

    return tuple(Input(one.name, (1, 28, 28)) for one in onnx.load(path).graph.input)


METHODS: dict[str, Make] = {
    "depth-only": ours(),
    "width-only": ours(method="width", method_settings={"widths": "1.0,0.75,0.5,0.25"}),
    "depth-and-width": ours(method_settings={"widths": "1.0,0.75,0.5,0.25"}),
    **{f"torch-pruning-{name}-{to}": pruned(name, to) for name in ("taylor", "bn-scale", "magnitude") for to in (4, 8)},
}


def accuracy(path: Path) -> float:
    """Of an ONNX file on the test data."""
    task = load_task(TASK)
    return score(engine_outputs(built(path), task.test_batches()), task).accuracy


def rows(args: argparse.Namespace) -> Iterator[tuple[Run, dict[str, Any]]]:
    """All rows, made if they are not there yet."""
    recipes = [None] if args.untrained else [replace(RECIPE, epochs=args.epochs, seed=n) for n in range(args.seeds)]
    for speedup in args.speedup:
        for name in args.only or METHODS:
            for recipe in recipes:
                run = Run(name, speedup, recipe)
                file = run.folder / "row.json"
                if not file.exists():
                    if name.startswith("torch-pruning") and importlib.util.find_spec("torch_pruning") is None:
                        print(f"{name}: pip install torch-pruning==1.6.0", file=sys.stderr)
                        continue
                    run.folder.mkdir(parents=True, exist_ok=True)
                    began = time.process_time()
                    METHODS[name](run)
                    write_json(file, {"accuracy": accuracy(run.onnx), "cpu_seconds": time.process_time() - began})
                yield run, json.loads(file.read_bytes())


def arguments() -> argparse.Namespace:
    """What may be changed from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedup", type=float, nargs="+", default=[2.15, 2.7, 3.5])
    parser.add_argument("--only", nargs="+", choices=list(METHODS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--untrained", action="store_true", help="nothing is trained")
    return parser.parse_args()


def main() -> None:
    """Make what is missing, time all of it interleaved, print the table."""
    RUNS.mkdir(parents=True, exist_ok=True)
    found = list(rows(arguments()))
    engines = {"original": built(_original())} | {str(n): built(run.onnx) for n, (run, _) in enumerate(found)}
    timings, before = compare(engines, FINAL), accuracy(_original())
    print(f"original: {before:.2%}, {timings['original'].median_ns / 1e6:.3f} ms\n")
    print("| method | wanted | seed | speed-up | test accuracy | points | CPU minutes |")
    print("|---|---|---|---|---|---|---|")
    for number, (run, row) in enumerate(found):
        measured = timings["original"].median_ns / timings[str(number)].median_ns
        points, seed = 100 * (row["accuracy"] - before), "-" if run.recipe is None else run.recipe.seed
        print(
            f"| {run.name} | {run.speedup:g}x | {seed} | {measured:.2f}x | {row['accuracy']:.2%} | {points:+.2f} "
            f"| {row['cpu_seconds'] / 60:.1f} |"
        )


if __name__ == "__main__":
    main()
