"""Decoupling (ELC) against merging at once: the same plan, the same number of epochs, two ways to carry it out.

For a ResNet-56 and a VGG-16 of a quarter of its width, on 20,000 images of Fashion-MNIST: trains the network, plans,
and compresses it twice, with ``decouple`` and without. Every stage is kept in ``runs/elc``, so that the same command
goes on where it was stopped. Prints one row for each run: latencies are measured by ONNX Runtime interleaved with the
original, accuracies are of the test data. With ``--method depth --estimator gates``, gates choose the activations that
go, by one training; with ``product``, the loss without any training does.

Plans leave out merges that are no faster here. With ``--merge-all`` there is no plan: every two layers that a skip
leads around, or that follow each other in a chain without skips, are decoupled and merged, whatever that does to the
latency.

    python benchmarks/elc.py [--only NAME] [--method METHOD] [--estimator ESTIMATOR] [--budget SHARE] [--epochs N]
                             [--steps N] [--held-out N] [--gates-epochs N] [--gates-penalty P] [--merge-all]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import fx
from torch.utils.data import TensorDataset

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.cli.show import Lines
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.errors import LayerMergeError
from trt_layermerge.files import replacing, write_json
from trt_layermerge.importance.estimators.base import Samples
from trt_layermerge.importance.estimators.gates import Gates
from trt_layermerge.importance.estimators.product import Product
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.proof import prove_network
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.count import size_of
from trt_layermerge.network.inputs import batched_shapes
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.network.source import load_source
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.planning.budget import Budget
from trt_layermerge.progress import reporting
from trt_layermerge.report.result import Result
from trt_layermerge.runtimes.base import BuildOptions, Engine
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.training.decoupling import decouple, settled
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.load_task import load_task
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "fashion_mnist"
RUNS = ROOT / "runs" / "elc"
IMAGES = 20_000
NETWORKS = {"vgg16": f"{EXAMPLE / 'vgg.py'}:vgg16", "resnet56": f"{EXAMPLE / 'model.py'}:resnet56"}
BASE = Recipe(epochs=4, lr=0.1, warmup=0.15, clip_norm=5.0)
TUNE = Recipe(lr=0.05, clip_norm=5.0, distillation=0.9)


def task() -> Classification:
    """The example's task on the first 20,000 of its training images, 2,000 of them held out."""
    whole = load_task(EXAMPLE / "task.py")
    assert isinstance(whole, Classification) and isinstance(whole.train, TensorDataset)
    first = TensorDataset(*(tensor[:IMAGES] for tensor in whole.train.tensors))
    return replace(whole, name="Fashion-MNIST, 20,000 images", train=first, held_out=2000)


def base(name: str) -> Path:
    """The weights of a network, trained from scratch if that was not done before."""
    path = RUNS / f"{name}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        network, data = load_source(NETWORKS[name]).module, task()
        with reporting(Lines()) as reporter:
            reporter.stage(f"train {name}")
            checkpoint = RUNS / f"{name}.base.checkpoint"
            fine_tune(network, data, BASE, checkpoint=checkpoint, progress=reporter.progress)
        print(f"{name}: test accuracy {evaluate(network, data.test_batches(), data).accuracy:.2%}")
        with replacing(path) as neighbour:
            save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, neighbour)
    return path


def compressed(name: str, args: argparse.Namespace, decoupled: float) -> Result:
    """A network compressed by the method's plan for the budget."""
    job = Job(
        model=NETWORKS[name],
        weights=base(name),
        task=Path(__file__),
        output=RUNS / f"{name}-{run_name(args)}",
        profiles=RUNS / "profiles",
        budget=Budget.parse(args.budget),
        method=args.method,
        samples=Samples(held_out=args.held_out),
        estimator=Product() if args.estimator == "product" else Gates(args.gates_penalty, epochs=args.gates_epochs),
        recipe=replace(TUNE, epochs=args.epochs, steps=args.steps, decouple=decoupled),
    )
    with reporting(Lines()) as reporter:
        return whole_job(open_session(job), reporter)


def merged_all(name: str, args: argparse.Namespace) -> dict[str, object]:
    """The row of a network with all its pairs of layers merged, once they are decoupled."""
    network, data = load_network(NETWORKS[name], base(name), (1, 28, 28)), task()
    choices = list(pairs(network))
    recipe = replace(TUNE, epochs=args.epochs, steps=args.steps, decouple=args.decouple)
    decoupled = decouple(network, choices)
    with reporting(Lines()) as reporter:
        reporter.stage(f"decouple {len(choices)} pairs of {name}")
        checkpoint = RUNS / f"{name}-all-{args.steps or f'{args.epochs}-epochs'}.checkpoint"
        teacher = network.module
        fine_tune(decoupled, data, recipe, checkpoint=checkpoint, teacher=teacher, progress=reporter.progress)
    compression = execute(settled(network, decoupled), choices, ())
    inputs, _ = next(iter(data.test_batches()))
    proof = prove_network(decoupled, compression.merged, inputs, compression.proofs)
    original, merged = fold_norms(network.module), fold_norms(compression.merged)
    before, after = size_of(original), size_of(merged)
    timings = compare({"original": engine(original, network), "merged": engine(merged, network)}, MeasurementPolicy())
    accuracies = [evaluate(module, data.test_batches(), data).accuracy for module in (original, decoupled, merged)]
    return {
        "network": name,
        "way": "all decoupled and merged",
        "layers": f"{before.layers} to {after.layers}",
        "flops": f"{after.flops / before.flops - 1:+.1%}",
        "speedup": f"{timings['original'].median_ns / timings['merged'].median_ns:.2f}",
        "accuracy": " to ".join(f"{accuracy:.2%}" for accuracy in accuracies),
        "merged": str(len(proof.blocks)),
        "worst block": f"{proof.worst_block:.1e}",
        "proof": f"{proof.end_to_end:.1e}",
    }


def pairs(network: Network) -> Iterator[Choice]:
    """Merges of two layers, both kept, that do not overlap; where there are skips, of those that one leads around."""
    ends: dict[int, int] = {}
    for choice in choices_of(network):
        block, chain = choice.block, network.chains[choice.block.chain]
        around = not chain.skips or any(skip.inside(block.start, block.end) for skip in chain.skips)
        whole = choice.kind is Kind.MERGE and len(block) == 2 == len(choice.kept)
        if whole and around and block.start >= ends.get(block.chain, 0):
            ends[block.chain] = block.end
            yield choice


def engine(module: fx.GraphModule, network: Network) -> Engine:
    """A network in ONNX Runtime, one image at a time."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export_onnx(module, network.inputs, path)
        return get_runtime("onnxruntime").build(path, BuildOptions(), batched_shapes(network.inputs, 1))


def run_name(args: argparse.Namespace) -> str:
    """What files of these arguments are called."""
    gates = f"-{args.gates_epochs}-{args.gates_penalty:g}" if args.estimator == "gates" else ""
    return f"{args.method}-{args.budget}-{args.estimator}{gates}"


def rows_of(name: str, args: argparse.Namespace) -> Iterator[dict[str, object]]:
    """The rows of a network: its plan executed both ways."""
    for way, decoupled in (("decoupled", args.decouple), ("merged at once", 0.0)):
        yield row(name, way, compressed(name, args, decoupled))


def row(name: str, way: str, result: Result) -> dict[str, object]:
    """What is told of a run."""
    manifest = result.manifest
    before, after = manifest.original, manifest.compressed
    return {
        "network": name,
        "way": way,
        "layers": f"{before.layers} to {after.layers}",
        "flops": f"{after.flops / before.flops - 1:+.1%}",
        "speedup": f"{manifest.speedup:.2f}",
        "merges": ", ".join(item["key"] for item in manifest.plan["items"] if item["kind"] == "merge"),
        "accuracy": f"{before.accuracy:.2%} to {after.accuracy:.2%}",
        "merged": str(manifest.proof.merged_blocks),
        "proof": f"{manifest.proof.merge_end_to_end:.1e}",
    }


def arguments() -> argparse.Namespace:
    """What may be changed from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(NETWORKS))
    parser.add_argument("--method", default="layermerge", choices=("depth", "layermerge", "layer-only"))
    parser.add_argument("--estimator", default="product", choices=("product", "gates"))
    parser.add_argument("--budget", default="0.6")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, help="in place of --epochs")
    parser.add_argument("--held-out", type=int, default=512, help="images that importance is evaluated on")
    parser.add_argument("--decouple", type=float, default=0.5)
    parser.add_argument("--gates-epochs", type=int, default=Gates.epochs)
    parser.add_argument("--gates-penalty", type=float, default=Gates.penalty)
    parser.add_argument("--merge-all", action="store_true", help="no plan: all pairs of layers")
    return parser.parse_args()


def main() -> None:
    """Run what is not done yet, and print the rows."""
    args = arguments()
    torch.set_num_threads(1)
    RUNS.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in [args.only] if args.only else NETWORKS:
        for found in [merged_all(name, args)] if args.merge_all else rows_of(name, args):
            rows.append(found)
            print("  ".join(f"{key} {value}" for key, value in found.items()), flush=True)
    write_json(RUNS / f"rows-{'all' if args.merge_all else run_name(args)}.json", {"rows": rows})


if __name__ == "__main__":
    try:
        main()
    except LayerMergeError as error:
        sys.exit(f"error: {error}")
