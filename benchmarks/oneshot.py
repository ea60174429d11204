"""How far the fits alone take a network, with no labels and no training: accuracy against latency.

A plan of ResNet-20 for each budget is executed several times, each time with one more of what fits can make use of,
and evaluated on the held-out images. Its latency, the same for all of them, is timed interleaved with the original's.
Only the last network of all is then also evaluated on the test images, which nothing here was chosen by.

    python benchmarks/oneshot.py --budget 0.6 --budget 0.48
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, fx

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.delivery.export import INPUT, export_onnx
from trt_layermerge.importance.evaluator import first
from trt_layermerge.latency.measure import compare
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.reconstruction import PLAIN, Strength
from trt_layermerge.merging.sequential import execute
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_frontier import frontier_of
from trt_layermerge.pipeline.session import Session, open_session
from trt_layermerge.pipeline.solving import chosen, tables_stage
from trt_layermerge.planning.budget import Budget
from trt_layermerge.training.evaluate import Score, evaluate

EXAMPLE = Path("examples/fashion_mnist")
INGREDIENTS = {
    "each block by itself, in a row": PLAIN,
    "  with norms re-estimated": replace(PLAIN, norms=True),
    "+ fitted behind the activation": replace(PLAIN, activations=True),
    "+ kept layers re-solved": replace(PLAIN, activations=True, layers=True),
    "+ ridge chosen": replace(PLAIN, activations=True, layers=True, ridge=True),
    "+ classifier re-solved": Strength(),
}
"""Each with a plus adds one to those above it; layers that are re-solved include their norms."""


class Quiet:
    """Tells nobody anything."""

    def stage(self, name: str) -> None:
        """Nothing."""

    def progress(self, done: int, total: int, label: str, *, share: float | None = None) -> None:
        """Nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--budget", action="append", help="share of the original's latency; may be repeated")
    parser.add_argument("--images", type=int, default=2048, help="calibration images, without their labels")
    parser.add_argument("--output", type=Path, default=Path("runs/oneshot"), help="folder of the tables; resumes")
    parser.add_argument("--profiles", type=Path, default=Path("profiles"))
    given = parser.parse_args()
    job = Job(
        model=f"{EXAMPLE}/model.py:resnet20",
        weights=EXAMPLE / "resnet20.safetensors",
        task=EXAMPLE / "task.py",
        output=given.output,
        profiles=given.profiles,
        budget=Budget.parse("0.9"),
    )
    session = open_session(job)
    baseline, table = tables_stage(session, Quiet())
    frontier = frontier_of(session, baseline, table)
    inputs = [batch for batch, _ in first(session.require_task().calibration_batches(), given.images)]
    original = evaluated(session, session.network.module)
    print(f"ResNet-20 on Fashion-MNIST, {given.images} calibration images; held out: {told(original)}")
    for share in given.budget or ["0.6", "0.5"]:
        plan = frontier.best(Budget.parse(share).nanoseconds(baseline.median_ns))
        print(f"\nbudget {share}: predicted {plan.original_ns / plan.latency_ns:.2f}x, {changes(plan.keys)}")
        model = ablation(session, chosen(session, plan), inputs, original)
        print(f"{'measured':<32} {speedup(session, model):.2f}x")
    test = evaluate(session.network.module, session.require_task().test_batches(), session.require_task())
    final = evaluate(model, session.require_task().test_batches(), session.require_task())
    print(f"\ntest images: original {test.accuracy:.2%}, the last one {told(final, test)}")


def ablation(session: Session, plan: Sequence[Choice], inputs: Sequence[Tensor], original: Score) -> fx.GraphModule:
    """Carry a plan out with more and more ingredients, and print what each is worth; the last network."""
    for name, strength in INGREDIENTS.items():
        began = time.monotonic()
        model = execute(session.network, plan, inputs, strength=strength).merged
        seconds = time.monotonic() - began
        print(f"{name:<32} {told(evaluated(session, model), original)}  {seconds:5.0f} s", flush=True)
    return model


def evaluated(session: Session, model: fx.GraphModule) -> Score:
    """Score on all held-out images."""
    return evaluate(model, session.require_task().held_out_batches(), session.require_task())


def told(score: Score, original: Score | None = None) -> str:
    """A score in words, with its distance from the original's."""
    lost = "" if original is None else f" ({100 * (score.accuracy - original.accuracy):+.2f} points)"
    return f"{score.accuracy:.2%}{lost}, loss {score.loss:.4f}"


def changes(keys: Sequence[str]) -> str:
    """The choices of a plan that change something."""
    return ", ".join(key for key in keys if " keep " not in key)


def speedup(session: Session, model: fx.GraphModule) -> float:
    """Measured latency of the original over that of a network, timed interleaved."""
    engines = {}
    for name, module in {"original": session.network.module, "compressed": model}.items():
        path = session.job.output / f"{name}.onnx"
        export_onnx(fold_norms(module), session.network.input_shape, path)
        shapes = {INPUT: (session.job.batch, *session.network.input_shape)}
        engines[name] = session.runtime.build(path, session.job.options, shapes)
    timings = compare(engines, session.job.final_policy)
    return timings["original"].median_ns / timings["compressed"].median_ns


if __name__ == "__main__":
    main()
