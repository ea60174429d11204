"""What ``solve`` finds in a frontier, and how it is printed: for people, as JSON, as CSV, as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from trt_layermerge.cli.show import print_json, print_text
from trt_layermerge.errors import UsageError
from trt_layermerge.planning.confidence import plan_for, probability, require_confidence
from trt_layermerge.planning.frontier import Frontier
from trt_layermerge.planning.plan import Plan
from trt_layermerge.planning.plot import require_plot, write_plot
from trt_layermerge.planning.views import frontier_csv, frontier_view, plan_csv, plan_view


@dataclass(frozen=True)
class Wanted:
    """What is to be found and how it is to be told.

    Attributes:
        whole: The whole frontier instead of a plan.
        count: How many plans.
        confidence: Least probability of meeting the budget.
        plot: File to draw the frontier into.
        as_json: As JSON.
        as_csv: As CSV.

    Raises:
        UsageError: This cannot be had together.
    """

    whole: bool = False
    count: int = 1
    confidence: float | None = None
    plot: Path | None = None
    as_json: bool = False
    as_csv: bool = False

    def __post_init__(self) -> None:
        """Check everything, before anything long begins."""
        if self.as_json and self.as_csv:
            raise UsageError("--json and --csv are two ways to print the same; pass one of them")
        asked = [("--frontier", self.whole), ("--count", self.count > 1), ("--confidence", self.confidence is not None)]
        if len(names := [name for name, given in asked if given]) > 1:
            raise UsageError(f"{' and '.join(names)} ask for different things; pass one of them")
        if self.confidence is not None:
            require_confidence(self.confidence)
        if self.plot is not None:
            require_plot(self.plot)


@dataclass(frozen=True)
class Solution:
    """Plans that were found.

    Attributes:
        frontier: What they were found in.
        budget_ns: The budget in ns; None where none was asked for.
        plans: The plans, the best first; none where the frontier itself was asked for.
        original: Whether the latency of the original is known.
        more: Further fields of a plan's JSON.
    """

    frontier: Frontier
    budget_ns: int | None
    plans: tuple[Plan, ...]
    original: bool = True
    more: dict[str, Any] = field(default_factory=dict)


def find(frontier: Frontier, budget_ns: int | None, wanted: Wanted) -> tuple[Plan, ...]:
    """The plans that are wanted.

    Raises:
        InfeasibleBudgetError: No plan meets the budget, or none does so surely enough.
    """
    if budget_ns is None:
        return ()
    if wanted.whole:
        return (frontier.best(budget_ns),)  # to mark it
    if wanted.confidence is None:
        return frontier.best_plans(budget_ns, wanted.count) if wanted.count > 1 else (frontier.best(budget_ns),)
    sure = plan_for(frontier, budget_ns, wanted.confidence)
    if not sure.best:
        click.echo("note: there may be a better plan that is as sure; the search for it was given up", err=True)
    return (sure.plan,)


def tell(solution: Solution, wanted: Wanted) -> None:
    """Print what is wanted, and draw it."""
    frontier, budget_ns = solution.frontier, solution.budget_ns
    if wanted.plot is not None:
        write_plot(wanted.plot, frontier, solution.plans, budget_ns)
    if budget_ns is not None and wanted.count == 1 and (shortfall := frontier.shortfall(budget_ns)) > 0:
        click.echo(f"note: at this resolution, the objective may be up to {shortfall:g} below the best", err=True)
    if wanted.whole:
        _tell_frontier(solution, wanted)
    elif wanted.as_json:
        views = [_view(solution, plan) for plan in solution.plans]
        print_json({"plans": views} if wanted.count > 1 else views[0])
    elif wanted.as_csv:
        print_text(_csv(solution.plans) if wanted.count > 1 else plan_csv(solution.plans[0]))
    else:
        click.echo("\n\n".join("\n".join(_lines(solution, plan)) for plan in solution.plans))


def _tell_frontier(solution: Solution, wanted: Wanted) -> None:
    frontier = solution.frontier
    if wanted.as_json:
        plan = _view(solution, solution.plans[0]) if solution.plans else {"method": frontier.problem.method}
        print_json(plan | {"frontier": frontier_view(frontier)})
    elif wanted.as_csv:
        print_text(frontier_csv(frontier))
    else:
        for point in frontier_view(frontier):
            click.echo(f"{point['latency_ms']:12.6f} ms  {point['objective']:+.6f}")


def _view(solution: Solution, plan: Plan) -> dict[str, Any]:
    return plan_view(plan, solution.budget_ns, _probability(solution, plan)) | solution.more


def _csv(plans: tuple[Plan, ...]) -> str:
    """Several plans as one table, numbered from 1."""
    tables = [plan_csv(plan).splitlines() for plan in plans]
    rows = (f"{number},{row}" for number, (_, *rows) in enumerate(tables, start=1) for row in rows)
    return "\n".join([f"plan,{tables[0][0]}", *rows]) + "\n"


def _probability(solution: Solution, plan: Plan) -> float | None:
    """Of meeting the budget; None where there is none, or no latency has an interval."""
    if solution.budget_ns is None or all(item.low_ns is None for item in plan.items):
        return None
    return probability(plan, solution.budget_ns)


def _lines(solution: Solution, plan: Plan) -> Iterator[str]:
    for item in plan.items:
        yield f"{item.key:<32} {item.latency_ns / 1e6:8.4f} ms  {item.value:+.4f}"
    of = f" of {plan.original_ns / 1e6:.3f} ms: {plan.speedup:.2f}x" if solution.original else ""
    sure = _probability(solution, plan)
    meets = "" if sure is None else f"; meets the budget with probability {sure:.3f}"
    yield f"predicted {plan.latency_ms:.3f} ms{of}, objective {plan.objective:+.4f}{meets}"
