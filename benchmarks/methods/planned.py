"""Methods that plan by tables: ours, and the papers', each carried out as it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from safetensors.torch import load_file, save_file
from torch import fx, nn

from trt_layermerge.files import replacing
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.reconstruction import PAPERS, PLAIN, Strength
from trt_layermerge.merging.restored_norms import restore_norms
from trt_layermerge.merging.sequential import execute, execute_on
from trt_layermerge.network.device import placed
from trt_layermerge.network.inputs import Values
from trt_layermerge.pipeline.measured_plans import digest_of
from trt_layermerge.pipeline.measuring import importance_table
from trt_layermerge.pipeline.session import Session
from trt_layermerge.pipeline.solving import ChosenPlan, chosen, with_kept
from trt_layermerge.planning.plan import Plan
from trt_layermerge.training.decoupling import decouple, settled
from trt_layermerge.training.recipe import Recipe

from .bench import Bench
from .contender import Contender, Rung
from .kept_plans import kept_plans

Way = Literal["merged", "linearised", "decoupled"]
"""Merged, then trained; trained without what goes, then merged (the papers); or that fades while it trains (ELC)."""

FADING = 0.5
"""Share of all steps in which what ELC's plan removes fades away."""

FEW = 16
"""Images that shapes are made with: their weights mean nothing."""

REACH, BEYOND, STEP = 0.86, 1.12, 1.02
"""Networks come out faster than predicted, or slower: at a budget, plans from so much of it up to so much are tried."""


@dataclass(frozen=True)
class PlannedRung(Rung):
    """A plan, and a way to carry it out.

    Attributes:
        plan: What to do.
        way: In which order.
        strength: What its fits make use of.
    """

    plan: ChosenPlan = field(repr=False)
    way: Way
    strength: Strength

    @property
    def alike(self) -> str:
        """What fades while it trains ends as what went before."""
        return self.name.replace("-decoupled", "-linearised")

    @property
    def trainable(self) -> PlannedRung:
        """Solved so that it can be trained."""
        return replace(self, strength=replace(self.strength, trains=True))

    def shape(self, bench: Bench) -> nn.Module:
        """The plan executed on a few images."""
        network, few = bench.widest.network, bench.calibration(FEW)
        return fold_norms(execute(network, self.plan.choices, few, strength=PLAIN, kept=self.plan.kept).merged)

    def start(self, bench: Bench) -> nn.Module:
        """Executed, with norms to train with; or with all that goes still in it."""
        if self.way != "merged":
            return decouple(bench.widest.network, self.plan.choices)
        path = bench.folder / "starts" / f"{self.name}{'-trains' * self.strength.trains}.safetensors"
        if not path.exists():
            made = self._trainable(bench, bench.calibration(bench.widest.job.fit_samples))
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as neighbour:
                save_file({name: value.contiguous() for name, value in made.state_dict().items()}, neighbour)
        module = self._trainable(bench, bench.calibration(FEW))
        module.load_state_dict(load_file(path))
        return module

    def finish(self, bench: Bench, trained: nn.Module) -> nn.Module:
        """Merged, if it is not yet."""
        assert isinstance(trained, fx.GraphModule)
        if self.way == "merged":
            return fold_norms(trained)
        network = settled(bench.widest.network, trained)
        return fold_norms(execute(network, self.plan.choices, (), strength=PAPERS).merged)

    def recipe(self, recipe: Recipe) -> Recipe:
        """As all train; ELC's fade."""
        return replace(recipe, decouple=FADING) if self.way == "decoupled" else recipe

    def _executed(self, bench: Bench, batches: Sequence[Values]) -> fx.GraphModule:
        device, network, plan = bench.computes_on, bench.widest.network, self.plan
        return execute_on(device, network, plan.choices, batches, strength=self.strength, kept=plan.kept).merged

    def _trainable(self, bench: Bench, batches: Sequence[Values]) -> fx.GraphModule:
        module = self._executed(bench, batches)
        with placed(module, bench.computes_on):
            restore_norms(module, bench.widest.network, self.plan.choices, batches)
        return module


@dataclass(frozen=True)
class Planned(Contender):
    """A method of the tool.

    Attributes:
        method: Its name there.
        way: How its plans are carried out.
        widths: Shares of channels on offer: which of the case's; ``None`` where nothing is narrowed.
        trained: Whether importance is that of choices which were each trained for a while, as the papers have it.
    """

    method: str
    way: Way = "merged"
    widths: int | None = None
    trained: bool = False

    def rungs(self, bench: Bench) -> Iterator[Rung]:
        """Plans of the frontier around each budget, and its fastest."""
        if (self.widths or 0) >= len(bench.case.widths):
            return  # it has fewer to offer
        widths = "" if self.widths is None else bench.case.widths[self.widths]
        session = bench.session(self.method, widths, trained=self.trained)
        if self.trained and not session.job.importance_file.exists():
            return  # which takes long, and is left out for most networks
        letter = "" if session.job.strength == Strength() else "p"
        name = " ".join(filter(None, (self.method, widths, "trained" * self.trained)))
        asked = speeds((*bench.case.budgets, *bench.case.untrained))
        for plan in kept_plans(bench, name, session, asked, lambda: self._plans(bench, session, asked)):
            name = f"plan-{digest_of(plan)}{letter}-{self.way}"
            yield PlannedRung(name, plan.speedup, chosen(session, plan), self.way, session.job.strength)

    def _plans(self, bench: Bench, session: Session, asked: Sequence[float]) -> Iterator[Plan]:
        frontier, table = bench.frontier(session), importance_table(session)
        original, fastest = frontier.problem.original_ns, int(frontier.latency_ns[0])
        plans: dict[str, Plan] = {}
        for speed in asked:
            if original / speed >= fastest:
                plan = frontier.best(int(original / speed))
                plans.setdefault(digest_of(plan), plan)
        plans.setdefault(digest_of(frontier.fastest), frontier.fastest)
        for plan in sorted(plans.values(), key=lambda one: -one.objective):
            yield with_kept(plan, table)


def speeds(budgets: Sequence[float]) -> list[float]:
    """Predicted speed-ups of the plans that are tried, ascending."""
    found: list[float] = []
    for budget in sorted(set(budgets)):
        speed = max(REACH * budget, found[-1] * STEP if found else 0.0)
        while speed <= BEYOND * budget:
            found.append(speed)
            speed *= STEP
    return found
