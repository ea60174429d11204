"""The networks that methods are compared on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trt_layermerge.training.recipe import Recipe

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
    trial_steps: int = 80


CASES = {
    "resnet20": Case(
        "ResNet-20 on Fashion-MNIST",
        f"{EXAMPLE / 'model.py'}:resnet20",
        EXAMPLE / "resnet20.safetensors",
        EXAMPLE / "task.py",
        Recipe(lr=0.04, distillation=0.9),
    ),
}
