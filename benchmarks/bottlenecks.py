"""Whether a fitted block at a linear bottleneck should end with an activation: MobileNetV2, before and after training.

torchvision's network is trained for an epoch from its ImageNet weights on enlarged images of Fashion-MNIST. Then its
inverted residuals are replaced by one fitted 3x3 convolution each, in several ways: ending as the original does, with
ReLU6 before the skip is added (what choices with an activation do), or with ReLU6 behind that. Evaluated on held-out
images: each block by itself as it was fitted; some of them, and rows of neighbours, also after a short training with
labels. A figure is on disk as soon as it is known, so that the same command goes on where it was stopped. Nothing is
timed.

    python benchmarks/bottlenecks.py --weights mobilenet_v2-b0353104.pth [--block N ...] [--row FIRST-LAST ...]
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from torchvision.models import mobilenet_v2

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.files import replacing, write_json
from trt_layermerge.importance.evaluator import Evaluator, first
from trt_layermerge.merging.algebra import to_module
from trt_layermerge.merging.reconstruction import PLAIN, Strength
from trt_layermerge.merging.rewrite import rewrite
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.network import Network, trace
from trt_layermerge.training.evaluate import Score, evaluate
from trt_layermerge.training.load_task import load_task
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification

ROOT = Path(__file__).parents[1]
SIZE, BATCH = 64, 64
BASE = Recipe(epochs=1, lr=0.02, clip_norm=5.0)
LIMITS = Limits(max_kernel=3, max_layers=3, bottleneck_activations=True)
Pair = tuple[Choice, Choice]
"""The 3x3 fit of an inverted residual that ends as it does, and the one that ends with its activation."""


@dataclass(frozen=True)
class Way:
    """How blocks are replaced.

    Attributes:
        activated: Whether by the choices with an activation.
        strength: What their fits make use of.
        behind: Whether ReLU6 follows what takes their place, the skip in it.
        trained: Whether it is worth training.
    """

    activated: bool
    strength: Strength = PLAIN
    behind: bool = False
    trained: bool = True


WAYS = {
    "linear": Way(activated=False),
    "relu6 before the skip": Way(activated=True, trained=False),
    "relu6 before the skip, fitted through it": Way(activated=True, strength=replace(PLAIN, activations=True)),
    "relu6 behind the skip": Way(activated=False, behind=True),
}


class Figures:
    """Scores by their names, on disk as soon as they are known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, tuple[float, float]] = json.loads(path.read_bytes()) if path.exists() else {}

    def get(self, name: str, measure: Callable[[], Score]) -> None:
        """Print a score, after measuring it if nobody has."""
        if name not in self.known:
            score = measure()
            self.known[name] = score.loss, score.accuracy
            write_json(self.path, self.known)
        loss, accuracy = self.known[name]
        print(f"{name:<80} loss {loss:.4f}  accuracy {accuracy:.2%}", flush=True)


def main() -> None:
    """Measure what is not known yet, and print all of it."""
    args = arguments()
    torch.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    data = task(args.images, args.held_out)
    network = trace("mobilenet_v2", base(args, data), (3, SIZE, SIZE))
    run, pairs = Run(network, data, args), inverted_residuals(network)
    run.figures.get("original", lambda: run.score(network.module))
    for start, end in [*((number, number) for number in args.block), *args.row]:
        for way in WAYS:
            if WAYS[way].trained:
                run.together(f"blocks {start}-{end}", way, [pairs[number] for number in range(start, end + 1)])
    for number, pair in pairs.items():
        for way in WAYS:
            run.alone(f"block {number}", way, pair)


class Run:
    """The network, the data, and what is known of them."""

    def __init__(self, network: Network, data: Classification, args: argparse.Namespace) -> None:
        self.network, self.data, self.args = network, data, args
        self.figures = Figures(args.output / "figures.json")
        self.inputs = [batch for batch, _ in first(data.calibration_batches(), args.calibration)]
        self.evaluator = Evaluator(network, data, first(data.held_out_batches(), args.held_out))

    def score(self, model: nn.Module) -> Score:
        """On the held-out images."""
        return evaluate(model, self.data.held_out_batches(), self.data)

    def alone(self, name: str, way: str, pair: Pair) -> None:
        """One block, as it was fitted."""

        def measure() -> Score:
            ((choice, module),) = self.modules(WAYS[way], [pair]).items()
            return self.evaluator.changed(choice, module)

        self.figures.get(f"{name}, {way}", measure)

    def together(self, name: str, way: str, pairs: Sequence[Pair]) -> None:
        """Some blocks at once, as they were fitted and after training."""
        model = cache(lambda: rewrite(self.network, self.modules(WAYS[way], pairs)).eval())
        self.figures.get(f"{name}, {way}, 0 steps", lambda: self.score(model()))
        for seed in range(self.args.seeds):
            recipe = Recipe(steps=self.args.steps, lr=self.args.lr, clip_norm=5.0, seed=seed)
            title = f"{name}, {way}, {recipe.steps} steps at {recipe.lr:g}, seed {seed}"
            self.figures.get(title, partial(self.trained, model, recipe, title))

    def trained(self, model: Callable[[], nn.Module], recipe: Recipe, title: str) -> Score:
        """A copy of a network, trained."""
        student = copy.deepcopy(model())
        checkpoint = self.args.output / f"{title.replace(', ', '-').replace(' ', '_')}.checkpoint"
        fine_tune(student, self.data, recipe, checkpoint=checkpoint, progress=told)
        score = self.score(student)
        checkpoint.unlink()
        return score

    def modules(self, way: Way, pairs: Iterable[Pair]) -> dict[Choice, nn.Module | None]:
        """What takes the place of blocks, fitted one after the other."""
        choices = [pair[way.activated] for pair in pairs]
        fits = execute(self.network, choices, self.inputs, strength=way.strength).fits
        modules = {choice: to_module(fits[choice.key].convolution) for choice in choices}
        return {choice: nn.Sequential(made, nn.ReLU6()) if way.behind else made for choice, made in modules.items()}


def inverted_residuals(network: Network) -> dict[int, Pair]:
    """The inverted residuals with an expansion, by their place in ``features``."""
    (chain,) = network.chains
    by_key, pairs = {choice.key: choice for choice in choices_of(network, LIMITS)}, {}
    for choice in by_key.values():
        expansion = chain.layers[choice.block.start]
        widens = expansion.geometry.out_channels > expansion.geometry.in_channels and expansion.geometry.kernel == (
            1,
            1,
        )
        if widens and choice.key == f"{choice.block} fit 3x3 g1 +relu6" and len(choice.block) == 3:
            pairs[int(expansion.name.split(".")[1])] = by_key[f"{choice.block} fit 3x3 g1"], choice
    return pairs


def task(images: int, held_out: int) -> Classification:
    """The example's images, enlarged, grey in three channels, without augmentation; the test images are not used."""
    example = load_task(ROOT / "examples" / "fashion_mnist" / "task.py")
    assert isinstance(example, Classification) and isinstance(example.train, TensorDataset)
    pixels, labels = (tensor[:images] for tensor in example.train.tensors)
    enlarged = F.interpolate(pixels, (SIZE, SIZE), mode="bilinear").expand(-1, 3, -1, -1)
    data = TensorDataset(enlarged, labels)
    return Classification(f"{images} images of Fashion-MNIST, {SIZE}x{SIZE}", data, data, BATCH, held_out)


def base(args: argparse.Namespace, data: Classification) -> nn.Module:
    """MobileNetV2 for ten classes, trained from its ImageNet weights if that was not done before."""
    path, model = args.output / "base.safetensors", mobilenet_v2(num_classes=10)
    if not path.exists():
        imagenet = torch.load(args.weights, weights_only=True)
        torch.manual_seed(0)
        nn.init.normal_(model.classifier[1].weight, std=0.01)
        own = {name: value for name, value in model.state_dict().items() if name.startswith("classifier")}
        model.load_state_dict(imagenet | own)
        fine_tune(model, data, BASE, checkpoint=args.output / "base.checkpoint", progress=told)
        with replacing(path) as neighbour:
            save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, neighbour)
    model.load_state_dict(load_file(path))
    return model.eval()


def told(done: int, total: int, label: str) -> None:
    """Progress on the terminal."""
    print(f"\r{done} of {total}  {label:<40}", end="" if done < total else "\n", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """What may be changed from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="torchvision's ImageNet weights; needed for the base alone")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "bottlenecks", help="folder; resumes")
    parser.add_argument("--images", type=int, default=12_000, help="of the training data")
    parser.add_argument("--held-out", type=int, default=2000, help="of these, to evaluate on")
    parser.add_argument("--calibration", type=int, default=512, help="images that fits are solved on")
    parser.add_argument("--block", type=int, action="append", default=[], help="also train with it replaced")
    parser.add_argument("--row", type=row, action="append", default=[], help="FIRST-LAST, all replaced at once")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seeds", type=int, default=1)
    return parser.parse_args()


def row(text: str) -> tuple[int, int]:
    """``4-9`` as two numbers."""
    start, end = text.split("-")
    return int(start), int(end)


if __name__ == "__main__":
    main()
