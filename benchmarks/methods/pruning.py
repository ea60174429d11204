"""Torch-Pruning 1.6 (Fang et al., CVPR 2023, arXiv 2301.12900), as its documentation has it."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from trt_layermerge.importance.evaluator import first
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.network.network import trace
from trt_layermerge.network.source import load_source

from .bench import Bench
from .contender import Contender, Rung

INSTALLED = importlib.util.find_spec("torch_pruning") is not None
TAYLOR_IMAGES = 1024
"""That gradients are summed over."""

STEP = 0.02
SHARES = tuple(round(STEP * number, 2) for number in range(4, 41))


@dataclass(frozen=True)
class PrunedRung(Rung):
    """A share of the channels pruned.

    Attributes:
        criterion: ``taylor``, ``bn-scale`` or ``magnitude``.
        round_to: Channels left are a multiple of it.
        everywhere: Whether channels of all groups are ranked together; else the same share of each group goes.
        share: Of the channels.
    """

    criterion: str
    round_to: int
    everywhere: bool
    share: float

    @property
    def alike(self) -> str:
        """What is pruned of each group alike has the same shapes, whichever channels go."""
        return self.name if self.everywhere else f"pruned-any-{self.round_to}-each-{self.share:g}"

    def shape(self, bench: Bench) -> nn.Module:
        """Pruned."""
        return self.start(bench).eval()

    def start(self, bench: Bench) -> nn.Module:
        """Pruned."""
        import torch_pruning as tp

        importance = {
            "taylor": tp.importance.GroupTaylorImportance,
            "bn-scale": tp.importance.BNScaleImportance,
            "magnitude": tp.importance.GroupMagnitudeImportance,
        }[self.criterion]()
        model = unpruned(bench)
        pruner = tp.pruner.BasePruner(
            model, example_of(bench), importance=importance,
            pruning_ratio=self.share, global_pruning=self.everywhere, round_to=self.round_to,
            ignored_layers=classifiers(model),
        )  # fmt: skip
        if self.criterion == "taylor":
            for name, gradient in _gradients(bench).items():
                model.get_parameter(name).grad = gradient.clone()
        pruner.step()
        model.zero_grad()
        return model

    def finish(self, bench: Bench, trained: nn.Module) -> nn.Module:
        """In normal form, folded."""
        return fold_norms(trace(self.name, copy.deepcopy(trained).eval(), bench.widest.network.inputs).module)


@dataclass(frozen=True)
class TorchPruning(Contender):
    """A criterion, a multiple that channels are rounded to, and what is ranked together; see ``PrunedRung``."""

    criterion: str
    round_to: int
    everywhere: bool

    def rungs(self, bench: Bench) -> Iterator[Rung]:
        """By the share that is pruned."""
        where, (multiples, most) = "all" if self.everywhere else "each", bench.case.pruned
        for share in SHARES if self.round_to in multiples else ():
            if share > most:
                return
            name = f"pruned-{self.criterion}-{self.round_to}-{where}-{share:g}"
            yield PrunedRung(name, None, self.criterion, self.round_to, self.everywhere, share)

    @classmethod
    def settings(cls) -> Iterator[TorchPruning]:
        """All that are compared; none where it is not installed."""
        for criterion in ("taylor", "bn-scale", "magnitude") if INSTALLED else ():
            for round_to in (4, 8):
                for everywhere in (False, True):
                    words = f"{criterion}, round_to {round_to}, {'global' if everywhere else 'each group'}"
                    yield cls(words, criterion, round_to, everywhere)


def unpruned(bench: Bench) -> nn.Module:
    """The original, in evaluation mode."""
    return load_source(bench.case.model, bench.case.weights).module.eval()


def example_of(bench: Bench) -> Tensor:
    """One image, that dependencies between layers are traced with."""
    example = bench.calibration(1)[0]
    return example if isinstance(example, Tensor) else example[0]


def classifiers(model: nn.Module) -> list[nn.Module]:
    """Layers whose outputs stay."""
    return [part for part in model.modules() if isinstance(part, nn.Linear)]


def sum_gradients(bench: Bench, model: nn.Module, images: int) -> None:
    """Leave the gradient of the loss by each parameter there, summed over calibration images; always on the CPU."""
    torch.manual_seed(0)
    model.zero_grad()
    for inputs, target in first(bench.task.calibration_batches(), images):
        bench.task.loss(model(*inputs), target).backward()


@cache
def _gradients(bench: Bench) -> dict[str, Tensor]:
    model = unpruned(bench)
    sum_gradients(bench, model, TAYLOR_IMAGES)
    return {name: part.grad for name, part in model.named_parameters() if part.grad is not None}
