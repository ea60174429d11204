"""The networks that methods are compared on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trt_layermerge.blocks.limits import Limits
from trt_layermerge.importance.estimators.base import Samples
from trt_layermerge.training.recipe import Recipe

from ..train_networks import TRAINEES, weights_of

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "fashion_mnist"


@dataclass(frozen=True)
class Case:
    """A trained network, and how everyone fine-tunes it.

    Attributes:
        title: For people.
        model: Its spec, as the command line takes it.
        weights: Its checkpoint.
        task: Its data. For a shortened fine-tuning on a fixed subset: a task file with that subset.
        recipe: Of the fine-tuning; the seed is a row's.
        batch: Images at once, where latencies are measured.
        budgets: How many times as fast.
        untrained: The same without any training.
        widths: Shares of channels that are on offer where methods narrow; the first is measured, others are parts.
        trial_steps: Of the short training that settings are picked by.
        samples: How much data importance looks at.
        limits: Which candidates there are.
        pruned: Multiples that channels are rounded to where they are pruned, and the largest share that is tried.
        validated: Plans that are timed to correct what all are predicted to take; 0 for no correction.
        trained_choices: Whether the papers' importance is measured, too: each choice trained for a while.
        page: Of docs/ that its section is in.
    """

    title: str
    model: str
    weights: Path
    task: Path
    recipe: Recipe
    batch: int = 8
    budgets: tuple[float, ...] = (1.5, 2.0, 2.15, 2.7, 3.5)
    untrained: tuple[float, ...] = (2.0, 2.7)
    widths: tuple[str, ...] = field(default=("1.0,0.75,0.5,0.25", "1.0,0.5"))
    trial_steps: int = 40
    samples: Samples = field(default_factory=Samples)
    limits: Limits = field(default_factory=Limits)
    pruned: tuple[tuple[int, ...], float] = ((4, 8), 0.8)
    validated: int = 0
    trained_choices: bool = False
    page: str = "results.md"


def _trained(name: str, title: str, recipe: Recipe, **more: Any) -> Case:
    """A network of ``train_networks.py``, at two budgets."""
    one = TRAINEES[name]
    asked = {"budgets": (1.5, 2.0), "untrained": (1.5,), "widths": ("1.0,0.75,0.5", "1.0,0.5")} | more
    return Case(
        f"{title} on Fashion-MNIST", one.model, weights_of(name), one.task, recipe,
        pruned=((8,), 0.6), validated=8, page="results-networks.md", **asked,
    )  # fmt: skip


FIVE_EPOCHS = Recipe(epochs=5, lr=0.04, distillation=0.9)
"""Rates of the networks below are the best of three by held-out loss, of networks of ours and of Torch-Pruning."""

CASES = {
    "resnet20": Case(
        "ResNet-20 on Fashion-MNIST",
        f"{EXAMPLE / 'model.py'}:resnet20",
        EXAMPLE / "resnet20.safetensors",
        EXAMPLE / "task.py",
        Recipe(lr=0.04, distillation=0.9),
        trained_choices=True,
    ),
    "mobilenet_v2": _trained(
        "mobilenet_v2", "MobileNetV2-1.0 at 64x64",
        FIVE_EPOCHS,
        untrained=(1.5, 2.0), widths=("1.0,0.75,0.5",),
        samples=Samples(1024, 2048), limits=Limits(max_layers=6),
    ),
    "vgg16": _trained("vgg16", "VGG-16-BN of a quarter of its width", replace(FIVE_EPOCHS, lr=0.08)),
    "mobilenet_v3_small": _trained("mobilenet_v3_small", "MobileNetV3-Small at 64x64", replace(FIVE_EPOCHS, lr=0.02)),
    "resnet56": _trained("resnet56", "ResNet-56", replace(FIVE_EPOCHS, lr=0.02), limits=Limits(max_layers=6)),
}  # fmt: skip
