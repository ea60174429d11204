"""What ``solve`` is asked to find in a frontier, and in which of its forms it is printed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from trt_layermerge.cli.show import print_json, print_text
from trt_layermerge.errors import UsageError
from trt_layermerge.planning.confidence import require_confidence
from trt_layermerge.planning.finding import find_plans
from trt_layermerge.planning.frontier import Frontier
from trt_layermerge.planning.plan import Plan
from trt_layermerge.planning.plot import require_plot, write_plot
from trt_layermerge.planning.views import frontier_csv
from trt_layermerge.report.plans import FoundPlans


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


def find(frontier: Frontier, budget_ns: int | None, wanted: Wanted) -> tuple[Plan, ...]:
    """The plans that are wanted.

    Raises:
        InfeasibleBudgetError: No plan meets the budget, or none does so surely enough.
    """
    if budget_ns is None:
        return ()
    if wanted.whole:
        return (frontier.best(budget_ns),)  # to mark it
    found = find_plans(frontier, budget_ns, wanted.confidence, wanted.count)
    say_if_better(found.best)
    return found.plans


def say_if_better(best: bool) -> None:
    """Say so, where there may be a better plan than the one that was found."""
    if not best:
        click.echo("note: there may be a better plan that is as sure; the search for it was given up", err=True)


def tell(solution: FoundPlans, wanted: Wanted) -> None:
    """Print what is wanted, and draw it."""
    frontier, budget_ns = solution.frontier, solution.budget_ns
    if wanted.plot is not None:
        write_plot(wanted.plot, frontier, solution.plans, budget_ns)
    if budget_ns is not None and wanted.count == 1 and (shortfall := frontier.shortfall(budget_ns)) > 0:
        click.echo(f"note: at this resolution, the objective may be up to {shortfall:g} below the best", err=True)
    if wanted.whole:
        _tell_frontier(solution, wanted)
    elif wanted.as_json:
        fields = [solution.plan_fields(plan) for plan in solution.plans]
        print_json({"plans": fields} if wanted.count > 1 else fields[0])
    elif wanted.as_csv:
        print_text(solution.plans_csv() if wanted.count > 1 else solution.plan_csv(solution.plans[0]))
    else:
        click.echo("\n\n".join("\n".join(solution.plan_lines(plan)) for plan in solution.plans))


def _tell_frontier(solution: FoundPlans, wanted: Wanted) -> None:
    if wanted.as_json:
        print_json(solution.frontier_fields())
    elif wanted.as_csv:
        print_text(frontier_csv(solution.frontier))
    else:
        click.echo("\n".join(solution.frontier_lines()))
