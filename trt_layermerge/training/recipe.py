"""How to train: the few numbers of a run, checked when they are set, and what follows from them at any step.

Torch-free, so that the command line can know them without the seconds that torch takes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from trt_layermerge.errors import UsageError

Precision = Literal["fp32", "bf16", "fp16", "auto"]
Optimizer = Literal["sgd", "adam", "relative-adam"]
Schedule = Literal["cosine", "step", "constant"]


@dataclass(frozen=True)
class Recipe:
    """Gradient descent with a linear warm-up, then by default half a cosine down to zero.

    Args:
        epochs: Passes over the training data.
        steps: Steps altogether, in place of ``epochs``; None goes by epochs.
        batch_size: Images of one step, for tasks named on the command line; None takes the task's own. A task file
            says this for itself.
        label_smoothing: As in ``torch.nn.functional.cross_entropy``, likewise.
        accumulation: Parts that a batch is run in, one after the other, their gradients added up: less memory for the
            same step, but that batch norms see the parts.
        optimizer: ``sgd`` with momentum; ``adam`` with its own two; or ``relative-adam``, whose steps are shares of
            each tensor's size: for what is nearly right, and must not be lost.
        lr: Learning rate at its peak.
        momentum: Of ``sgd``, at least 0 and below 1.
        nesterov: Whether that looks ahead.
        weight_decay: L2 penalty on kernels; biases and norms have none.
        schedule: ``cosine``; ``step``, which multiplies the rate by ``decay`` at each milestone; or ``constant``.
        milestones: Shares of all steps at which ``step`` acts, 0..1, rising.
        decay: What ``step`` multiplies by, 0..1.
        warmup: Share of all steps in which the learning rate rises, at least 0 and below 1.
        average: Decay of the moving average of the weights, which the run ends with, 0..1; 0 ends with the weights.
        distillation: Weight of the teacher's word against the label's, 0..1; 0 needs no teacher.
        temperature: Softens teacher and student alike when they are compared.
        seed: Of the order of the data, its augmentation and dropout.
        precision: ``bf16`` and ``fp16`` run forward and backward passes under autocast; the weights stay float32.
            Losses of ``fp16`` are scaled, so that small gradients do not vanish. ``auto`` is ``bf16`` on processors
            that multiply in it, and ``fp32`` on all other devices.
        fixed_norms: Batch norms keep their statistics, and compute as in evaluation. The teacher's do so, too: what is
            to become the same function begins as nearly the same.
        clip_norm: Longest gradient that is followed as it is; None follows any.
        channels_last: Train with kernels and images in NHWC layout, which convolutions are faster in.
        decouple: Share of all steps in which what a plan removes fades away, at least 0 and below 1; 0 removes it at
            once, before the first step. See ``decoupling``.
        gate_penalty: Added to the loss for each activation with a gate that is not linear yet; 0 lets gates learn from
            the loss alone. See ``gates``.
        checkpoint_seconds: Seconds between two checkpoints; the only field that does not change the result.

    Raises:
        UsageError: A number is out of its range.
    """

    epochs: int = 2
    steps: int | None = None
    batch_size: int | None = None
    label_smoothing: float = 0.0
    accumulation: int = 1
    optimizer: Optimizer = "sgd"
    lr: float = 0.02
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    milestones: tuple[float, ...] = ()
    decay: float = 0.1
    warmup: float = 0.1
    average: float = 0.0
    distillation: float = 0.0
    temperature: float = 4.0
    seed: int = 0
    precision: Precision = "fp32"
    fixed_norms: bool = False
    clip_norm: float | None = None
    channels_last: bool = True
    decouple: float = 0.0
    gate_penalty: float = 0.0
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse a number out of its range."""
        for field, (holds, range_) in self._rules().items():
            if not holds:
                raise UsageError(f"recipe: {field} is {getattr(self, field)!r}; it must be {range_}")

    def _rules(self) -> dict[str, tuple[bool, str]]:
        """Of each field, whether it is in its range, and the range in words."""
        below_one, share = "at least 0 and below 1", "in 0..1"
        rising = all(0 < mark < 1 for mark in self.milestones) and sorted(set(self.milestones)) == [*self.milestones]
        return {
            "epochs": (self.epochs >= 1, "at least 1"),
            "steps": (self.steps is None or self.steps >= 1, "at least 1, or left out"),
            "batch_size": (self.batch_size is None or self.batch_size >= 1, "at least 1, or left out"),
            "label_smoothing": (0 <= self.label_smoothing < 1, below_one),
            "accumulation": (self.accumulation >= 1, "at least 1"),
            "optimizer": _one_of(self.optimizer, Optimizer),
            "lr": (0 < self.lr < math.inf, "above 0"),
            "momentum": (0 <= self.momentum < 1, below_one),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0"),
            "schedule": _one_of(self.schedule, Schedule),
            "milestones": (rising, "shares of all steps between 0 and 1, rising"),
            "decay": (0 < self.decay <= 1, "above 0 and at most 1"),
            "warmup": (0 <= self.warmup < 1, below_one),
            "average": (0 <= self.average < 1, below_one),
            "distillation": (0 <= self.distillation <= 1, share),
            "temperature": (0 < self.temperature < math.inf, "above 0"),
            "seed": (0 <= self.seed < 2**63, "at least 0 and below 2**63"),
            "precision": _one_of(self.precision, Precision),
            "clip_norm": (self.clip_norm is None or self.clip_norm > 0, "above 0, or None"),
            "decouple": (0 <= self.decouple < 1, below_one),
            "gate_penalty": (0 <= self.gate_penalty < math.inf, "at least 0"),
            "checkpoint_seconds": (self.checkpoint_seconds >= 0, "at least 0"),
        }

    def steps_of(self, epoch_steps: int) -> int:
        """Steps of a run whose epochs have this many."""
        return self.epochs * epoch_steps if self.steps is None else self.steps

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of a step, 0..steps-1: up in a line to ``lr``, then as the schedule says.

        The cosine is Loshchilov and Hutter's, arXiv 1608.03983, equation 5, with no restart: 0 after the last step.
        """
        rising = round(self.warmup * steps)
        if step < rising:
            return self.lr * ((step + 1) / rising)
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "step":
            return self.lr * math.prod(self.decay for mark in self.milestones if step >= mark * steps)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    def average_at(self, step: int) -> float:
        """Decay of the moving average at a step, from 0: less at first, so that the start is forgotten.

        As TensorFlow's ``ExponentialMovingAverage`` does where it is told the number of updates.
        """
        return min(self.average, (1 + step) / (10 + step))

    def faded_at(self, step: int, steps: int) -> float:
        """Share to which what a plan removes is gone at a step, 0..steps: up in a line to 1."""
        fading = self.decouple * steps
        return 1.0 if step >= fading else step / fading

    def result_fields(self) -> dict[str, Any]:
        """All fields that the result of a run depends on."""
        return {name: value for name, value in asdict(self).items() if name != "checkpoint_seconds"}


def _one_of(value: str, names: Any) -> tuple[bool, str]:
    """Whether a word is one of a ``Literal``, and these in words."""
    *others, last = get_args(names)
    return value in get_args(names), f"{', '.join(others)} or {last}"
