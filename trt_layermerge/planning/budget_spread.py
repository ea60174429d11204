"""Budgets to look at before one is chosen: in even steps of speed-up, from the original towards the fastest plan."""

from __future__ import annotations

from decimal import Decimal
from math import ceil, log, sqrt

from trt_layermerge.planning.budget import Budget, BudgetUnit
from trt_layermerge.planning.frontier import Frontier

STEP = sqrt(2)
"""Largest factor between a budget and the next one: the fastest plans of all drop most of a network."""

_DIGITS = 4
"""Of a share of the latency, where two do not tell budgets apart."""


def spread_budgets(frontier: Frontier, count: int) -> tuple[Budget, ...]:
    """Budgets as shares of the original's latency, the largest first, each met by some plan.

    Each is the same factor below the one before it, at most ``STEP``, and the last one is no lower than the fastest
    plan; rounded up to whole percents, or where those do not tell them apart to hundredths of one. Those that round to
    the same are there once; none where no plan is faster than the original.

    Args:
        frontier: The plans.
        count: How many budgets there may be, 1 at least.
    """
    original, fastest = frontier.problem.original_ns, max(int(frontier.latency_ns[0]), 1)
    if fastest >= original:
        return ()
    last = max(fastest / original, STEP**-count)
    places = 2 if -log(last) / count > 0.01 else _DIGITS
    shares = (rounded_up(last ** (step / count), places) for step in range(1, count + 1))
    budgets = (Budget(share, BudgetUnit.SHARE) for share in dict.fromkeys(shares) if share < 1)
    return tuple(budget for budget in budgets if budget.nanoseconds(original) >= int(frontier.latency_ns[0]))


def rounded_up(share: float, places: int) -> Decimal:
    """The least number of so many decimal places that is not below, and positive."""
    return Decimal(max(ceil(share * 10**places), 1)).scaleb(-places)
