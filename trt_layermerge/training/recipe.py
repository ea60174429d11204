"""How to fine-tune: the few numbers of a training run, checked when they are set, and its learning rate at any step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trt_layermerge.errors import UsageError

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with Nesterov momentum, linear warm-up, then half a cosine down to zero.

    Args:
        epochs: Passes over the training data.
        lr: Learning rate at its peak.
        momentum: Nesterov momentum, 0..1.
        weight_decay: L2 penalty on kernels; biases and norms have none.
        warmup: Share of all steps in which the learning rate rises, 0..1.
        distillation: Weight of the teacher's word against the label's, 0..1; 0 needs no teacher.
        temperature: Softens teacher and student alike when they are compared.
        seed: Of the order of the data, its augmentation and dropout.
        precision: ``bf16`` runs forward and backward passes under autocast; the weights stay float32.
        clip_norm: Longest gradient that is followed as it is; None follows any.
        channels_last: Train with kernels and images in NHWC layout, which convolutions are faster in.
        decouple: Share of all steps in which what a plan removes fades away, at least 0 and below 1; 0 removes it at
            once, before the first step. See ``decoupling``.
        checkpoint_seconds: Seconds between two checkpoints; the only field that does not change the result.

    Raises:
        UsageError: A number is out of its range.
    """

    epochs: int = 2
    lr: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.1
    distillation: float = 0.0
    temperature: float = 4.0
    seed: int = 0
    precision: Precision = "fp32"
    clip_norm: float | None = None
    channels_last: bool = True
    decouple: float = 0.0
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse a number out of its range."""
        rules = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "lr": (0 < self.lr < math.inf, "above 0"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and below 1"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0"),
            "warmup": (0 <= self.warmup < 1, "at least 0 and below 1"),
            "distillation": (0 <= self.distillation <= 1, "in 0..1"),
            "temperature": (0 < self.temperature < math.inf, "above 0"),
            "seed": (0 <= self.seed < 2**63, "at least 0 and below 2**63"),
            "precision": (self.precision in ("fp32", "bf16"), "fp32 or bf16"),
            "clip_norm": (self.clip_norm is None or self.clip_norm > 0, "above 0, or None"),
            "decouple": (0 <= self.decouple < 1, "at least 0 and below 1"),
            "checkpoint_seconds": (self.checkpoint_seconds >= 0, "at least 0"),
        }
        for field, (holds, range_) in rules.items():
            if not holds:
                raise UsageError(f"recipe: {field} is {getattr(self, field)!r}; it must be {range_}")

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of a step, 0..steps-1: up in a line to ``lr``, then down half a cosine to 0 after the last.

        The cosine is Loshchilov and Hutter's, arXiv 1608.03983, equation 5, with no restart.
        """
        rising = round(self.warmup * steps)
        if step < rising:
            return self.lr * ((step + 1) / rising)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    def faded_at(self, step: int, steps: int) -> float:
        """Share to which what a plan removes is gone at a step, 0..steps: up in a line to 1."""
        fading = self.decouple * steps
        return 1.0 if step >= fading else step / fading
