"""Which plans of a frontier are wanted: the best one, the best few, or one that surely meets the budget."""

from __future__ import annotations

from dataclasses import dataclass

from trt_layermerge.errors import say
from trt_layermerge.planning.budget import milliseconds
from trt_layermerge.planning.confidence import plan_for
from trt_layermerge.planning.frontier import Frontier
from trt_layermerge.planning.plan import Plan


@dataclass(frozen=True)
class Found:
    """Plans that were found.

    Attributes:
        plans: The best one first.
        best: Whether no better plan is known to be possible.
    """

    plans: tuple[Plan, ...]
    best: bool = True


def without_impossible(frontier: Frontier) -> Frontier:
    """A frontier without the plans that are predicted to take no time at all, or less; that there were some is said.

    Raises:
        InputError: It has no others.
    """
    possible = frontier.possible()
    if count := possible.impossible:
        say(
            f"left out: {count} plan{'s' * (count > 1)} that would take no time at all, for the latencies of parts add "
            f"up to more than the {milliseconds(frontier.problem.original_ns)} of the original"
        )
    return possible


def find_plans(frontier: Frontier, budget_ns: int, confidence: float | None = None, count: int = 1) -> Found:
    """The plans within a budget.

    Args:
        frontier: Where to look.
        budget_ns: Largest latency in ns, end to end.
        confidence: Least probability of meeting it; ``None`` to go by measured latencies alone.
        count: How many plans, where nothing is said of confidence.

    Raises:
        InfeasibleBudgetError: No plan meets the budget, or none does so surely enough.
    """
    if confidence is not None:
        sure = plan_for(frontier, budget_ns, confidence)
        return Found((sure.plan,), sure.best)
    return Found(frontier.best_plans(budget_ns, count) if count > 1 else (frontier.best(budget_ns),))
