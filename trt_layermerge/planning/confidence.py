"""How sure it is that a plan meets its budget, given how sure its latencies are; and plans that are sure enough.

A measured latency comes with a 95 % confidence interval. What the latencies may be in truth is drawn at random,
measurement by measurement, and a plan's probability is the share of draws in which it keeps the budget. What is not in
the intervals is not in the probability: that latencies add up is an assumption, and the part outside of all blocks is
taken as certain.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from trt_layermerge.errors import InfeasibleBudgetError, UsageError
from trt_layermerge.planning.budget import milliseconds
from trt_layermerge.planning.frontier import Frontier, solve
from trt_layermerge.planning.plan import Plan
from trt_layermerge.planning.problem import Item
from trt_layermerge.planning.states import Floats

DRAWS = 10_000  # the probability's own standard error is at most 0.005, and 0.0022 at 0.95
WIDTH = NormalDist().inv_cdf(0.975)  # half a 95 % interval in standard deviations
CLOSEST = 200  # plans that are looked at between the best one and one that is sure enough

Measurement = tuple[int, int, int]


@dataclass(frozen=True)
class SurePlan:
    """A plan that meets its budget with at least a given probability.

    Attributes:
        plan: The plan; its latency, as measured, is within the budget too.
        probability: Probability that it meets the budget.
        confidence: What was asked for.
        best: Whether it is known to be the plan of largest value that is as sure as this.
    """

    plan: Plan
    probability: float
    confidence: float
    best: bool


def probability(plan: Plan, budget_ns: int, seed: int = 0) -> float:
    """Probability that a plan meets a budget: a parametric bootstrap over the intervals of its latencies.

    Each latency is drawn from a split normal distribution: one half of the probability lies below the measured
    latency and one above, and 95 % within the interval. Items of one measurement, which latency and interval tell,
    share their draws; all others are independent. The draws depend on the seed and the measurement only, so that plans
    are compared on equal draws and a result comes out the same again.

    Args:
        plan: The plan; items without an interval are taken as certain.
        budget_ns: Largest latency in ns, end to end.
        seed: Not negative; another seed gives other draws.
    """
    shared = _measurements(plan)
    if not shared:
        return float(plan.latency_ns <= budget_ns)
    excess = np.full(DRAWS, float(plan.latency_ns - budget_ns))
    for measurement, times in sorted(shared.items()):
        excess += times * _errors(measurement, seed)
    return float(np.mean(excess <= 0))


def require_confidence(confidence: float) -> None:
    """See that a plan can be as sure as that.

    Raises:
        UsageError: The confidence is not above 0 and below 1.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"a confidence of {confidence} cannot be", hint="write 0.95 for 95 %; 1 is never reached")


def plan_for(frontier: Frontier, budget_ns: int, confidence: float, seed: int = 0) -> SurePlan:
    """The plan of largest value among those that meet a budget with at least some probability.

    A first one is looked for on the frontier, from the budget down. Plans that are not on the frontier may be worth
    more and be sure enough for their narrower intervals, so the best plans within the budget are looked at in the
    order of their value; if that does not end within ``CLOSEST`` plans, the result says that it may not be the best.

    Args:
        frontier: The frontier.
        budget_ns: Largest latency in ns, end to end; the measured latency keeps it in any case.
        confidence: Least probability, above 0 and below 1.
        seed: As of ``probability``.

    Raises:
        UsageError: The confidence is not above 0 and below 1.
        InfeasibleBudgetError: No plan was found that is fast and sure enough.
    """
    require_confidence(confidence)
    best = frontier.best(budget_ns)
    sure = probability(best, budget_ns, seed)
    if sure >= confidence:
        return SurePlan(best, sure, confidence, best=frontier.error_ns == 0)
    known = _on_frontier(frontier, budget_ns, confidence, seed) or _steadiest(frontier, budget_ns, confidence, seed)
    plans = frontier.best_plans(budget_ns, CLOSEST)
    for plan in plans:
        if known is not None and plan.objective <= known.plan.objective:
            return replace(known, best=True)
        sure = probability(plan, budget_ns, seed)
        if sure >= confidence:
            return SurePlan(plan, sure, confidence, best=True)
    if known is None:
        raise _not_sure(frontier, budget_ns, confidence, seed)
    return replace(known, best=len(plans) < CLOSEST)


def _on_frontier(frontier: Frontier, budget_ns: int, confidence: float, seed: int) -> SurePlan | None:
    """The plan of the frontier that is worth most and sure enough."""
    for index in range(int(np.searchsorted(frontier.latency_ns, budget_ns, side="right")) - 1, -1, -1):
        plan = frontier.plan(index)
        if _roughly(plan, budget_ns) < confidence - 0.1:
            continue  # draws would not find otherwise
        sure = probability(plan, budget_ns, seed)
        if sure >= confidence:
            return SurePlan(plan, sure, confidence, best=False)
    return None


def _steadiest(frontier: Frontier, budget_ns: int, confidence: float, seed: int) -> SurePlan | None:
    """The surest of the plans that no other one beats in both latency and variance, if it is sure enough.

    With independent normal errors the surest plan of all is one of them: for a given latency it has least variance.
    """
    plan = _surest(frontier, budget_ns, seed)
    sure = probability(plan, budget_ns, seed)
    return SurePlan(plan, sure, confidence, best=False) if sure >= confidence else None


def _surest(frontier: Frontier, budget_ns: int, seed: int) -> Plan:
    """The most probable to keep the budget of the plans that are fast and steady, and keep it as measured."""
    problem = frontier.problem
    steady = tuple(replace(item, value=-_moments(item)[1]) for item in problem.items)
    groups = tuple(
        replace(group, options=tuple(replace(one, value=0.0) for one in group.options)) for group in problem.groups
    )
    other = solve(replace(problem, items=steady, groups=groups))
    within = range(int(np.searchsorted(other.latency_ns, budget_ns, side="right")))
    rough = sorted(((_roughly(other.plan(index), budget_ns), -index) for index in within), reverse=True)[:CLOSEST]
    own = {(item.key, item.widths): item for item in problem.items}
    plans = [Plan.of(problem, (own[item.key, item.widths] for item in other.plan(-index).items)) for _, index in rough]
    plans = [plan for plan in plans if plan.latency_ns > 0 or not frontier.impossible] or [frontier.best(budget_ns)]
    return max(plans, key=lambda plan: (probability(plan, budget_ns, seed), plan.objective))


def _not_sure(frontier: Frontier, budget_ns: int, confidence: float, seed: int) -> InfeasibleBudgetError:
    plan = _surest(frontier, budget_ns, seed)
    return InfeasibleBudgetError(
        f"no plan meets a budget of {milliseconds(budget_ns)} with probability {confidence:g}: the surest, of "
        f"{milliseconds(plan.latency_ns)}, does with {probability(plan, budget_ns, seed):.3f}; "
        f"the fastest takes {milliseconds(frontier.fastest.latency_ns)}",
        fastest_ms=frontier.fastest.latency_ns / 1e6,
        hint="allow a larger budget or a lower confidence, or measure latencies longer for narrower intervals",
    )


def _measurements(plan: Plan) -> Counter[Measurement]:
    known: Counter[Measurement] = Counter()
    for item in plan.items:
        if item.low_ns is not None and item.high_ns is not None and item.low_ns < item.high_ns:
            known[item.latency_ns, item.low_ns, item.high_ns] += 1
    return known


@lru_cache(maxsize=512)
def _errors(measurement: Measurement, seed: int) -> Floats:
    """Draws of by how much a latency is longer in truth than it was measured, in ns."""
    latency, low, high = measurement
    numbers = (number % (1 << 64) for number in measurement)  # what a region saves by its gaps may be below 0
    normal = np.random.default_rng([seed, *numbers]).standard_normal(DRAWS)
    errors: Floats = normal * np.where(normal < 0, latency - low, high - latency) / WIDTH
    return errors


def _moments(item: Item) -> tuple[float, float]:
    """Mean error and variance of a latency, in ns and ns squared: those of the split normal distribution."""
    if item.low_ns is None or item.high_ns is None:
        return 0.0, 0.0
    below, above = (item.latency_ns - item.low_ns) / WIDTH, (item.high_ns - item.latency_ns) / WIDTH
    mean = (above - below) / math.sqrt(2 * math.pi)
    return mean, (below**2 + above**2) / 2 - mean**2


def _roughly(plan: Plan, budget_ns: int) -> float:
    """The probability if the errors of measurements add up to a normal distribution."""
    mean, variance = float(plan.latency_ns), 0.0
    for (latency, low, high), times in _measurements(plan).items():
        shift, spread = _moments(Item(0, 0, 1, "", "keep", latency, 0.0, low_ns=low, high_ns=high))
        mean, variance = mean + times * shift, variance + times**2 * spread
    if variance <= 0:
        return float(plan.latency_ns <= budget_ns)
    return NormalDist(mean, math.sqrt(variance)).cdf(budget_ns)
