"""Torch-Pruning's iterative mode: what is left is ranked anew after each step, by gradients that are computed anew.

Its documentation trains between steps. Here nothing is trained until the end: all methods get the same training, once.
So the documentation's scores are not these; what is compared is the ranking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import nn

from trt_layermerge.files import parse_json, read_bytes, sha256, write_json
from trt_layermerge.locks import exclusive

from .bench import Bench
from .contender import Contender, Rung
from .pruning import INSTALLED, SHARES, STEP, PrunedRung, classifiers, example_of, sum_gradients, unpruned

STEP_IMAGES = 512
"""That the gradients of one step are summed over."""

Cut = list[tuple[str, bool, list[int]]]
"""What one step prunes, as Torch-Pruning's history has it: layers, whether their outputs, and which channels."""


@dataclass(frozen=True)
class IterativeRung(PrunedRung):
    """What is left of one path after the steps up to a share of the channels."""

    def start(self, bench: Bench) -> nn.Module:
        """Pruned."""
        import torch_pruning as tp

        model = unpruned(bench)
        cuts = path(bench, self.round_to)[: round(self.share / STEP)]
        graph = tp.DependencyGraph().build_dependency(model, example_of(bench))
        graph.load_pruning_history([part for cut in cuts for part in cut])
        return model


@dataclass(frozen=True)
class IterativePruning(Contender):
    """By Taylor scores, all groups ranked together, in steps of 2 % of the channels: each is a rung."""

    round_to: int

    def rungs(self, bench: Bench) -> Iterator[Rung]:
        """By the share that is pruned."""
        multiples, most = bench.case.pruned
        for share in SHARES if self.round_to in multiples else ():
            if share > most:
                return
            name = f"pruned-taylor-{self.round_to}-all-iterative-{share:g}"
            yield IterativeRung(name, None, "taylor", self.round_to, True, share)

    @classmethod
    def settings(cls) -> Iterator[IterativePruning]:
        """All that are compared; none where it is not installed."""
        for round_to in (4, 8) if INSTALLED else ():
            yield cls(f"taylor, round_to {round_to}, global, iterative", round_to)


def path(bench: Bench, round_to: int) -> list[Cut]:
    """What each step prunes; computed once and kept, for another processor might rank otherwise."""
    file = path_file(bench, round_to)
    with exclusive(file.parent, wait=True):
        if not file.exists():
            with bench.cost("iterative pruning"):
                write_json(file, _computed(bench, round_to))
    return _read(file)


def path_file(bench: Bench, round_to: int) -> Path:
    """Where a path is kept: one for the weights, what channels are rounded to, and how far it goes."""
    weights, most = sha256(bench.case.weights)[:8], bench.case.pruned[1]
    return bench.folder / "iterative-pruning" / f"{weights}-round-to-{round_to}-up-to-{most:g}.json"


@cache
def _read(file: Path) -> list[Cut]:
    return list(parse_json(read_bytes(file)))


def _computed(bench: Bench, round_to: int) -> list[Cut]:
    """Step ``i`` leaves ``1 - 0.02 i`` of the channels that there were first, less what rounding takes."""
    import torch_pruning as tp

    model, most = unpruned(bench), bench.case.pruned[1]
    steps = round(most / STEP)
    pruner = tp.pruner.BasePruner(
        model, example_of(bench), importance=tp.importance.GroupTaylorImportance(), pruning_ratio=most,
        iterative_steps=steps, global_pruning=True, round_to=round_to, ignored_layers=classifiers(model),
    )  # fmt: skip
    cuts, done = [], 0
    for _ in range(steps):
        sum_gradients(bench, model, STEP_IMAGES)
        pruner.step()
        history = pruner.pruning_history()
        cuts.append([(name, bool(outputs), [int(one) for one in gone]) for name, outputs, gone in history[done:]])
        done = len(history)
    return cuts
