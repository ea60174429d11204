"""Which partial plans cannot become part of the frontier: a proof by Lagrangian bounds, so that nothing is lost.

For a price of latency p (value per ns) the plan of largest value - p * latency is a longest path: cheap, and all prices
at once. Such plans are the corners of the concave hull of the frontier. Between two neighbouring corners the
price is the slope of the hull's edge there. A plan through a partial plan has at most the score of that partial plan
plus the best score of what may follow; where for every edge of the hull this is less than what known plans
reach at every budget of that edge, no plan through it is on the frontier. (Handler and Zang 1980 on the dual of the
constrained shortest path; here for all budgets at once.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trt_layermerge.planning.path import Mask, Path, undominated
from trt_layermerge.planning.states import Floats, Ints

ROUNDS = 5  # doublings of the number of corners; more of them tighten the bounds by less than they cost
EPSILON = float(np.finfo(np.float64).eps)
GRID = 64  # latencies at which a threshold is worked out exactly


@dataclass(frozen=True, eq=False)
class Hull:
    """Corners of the concave hull of the frontier (some, if there are many), and bounds for one price per edge.

    Attributes:
        latency: Latency of each corner in ns, ascending; the first is the fastest plan, the last the best one.
        value: Value of each corner, ascending.
        price: Value per ns: the slope from each corner to the next; 0 for the last corner.
        before: Best score from the first node to each node at each price, nodes by prices.
        after: Best score from each node to the last at each price, nodes by prices.
        slack: What rounding may have cost a score, for each price.
    """

    latency: Ints
    value: Floats
    price: Floats
    before: Floats
    after: Floats
    slack: Floats

    @staticmethod
    def of(path: Path) -> Hull:
        """The hull, by splitting each edge at the best plan for its slope until none splits."""
        # The two ends: latency alone, then value alone; if one plan is both, it is the only corner.
        latency, value = undominated(*_best_plans(path, np.array([0.0, 1.0]), np.array([1.0, 0.0])))
        for _ in range(ROUNDS):
            # At an edge's own slope both its corners score alike, so a plan that scores more lies above the edge.
            price = _slopes(latency, value)
            more = _best_plans(path, np.ones(len(price)), price)
            corners = len(latency)
            latency, value = undominated(np.append(latency, more[0]), np.append(value, more[1]))
            if len(latency) == corners:  # no edge has a plan above it: the hull is whole
                break
        return _hull(path, latency, value, np.append(_slopes(latency, value), 0.0))

    def floor(self, latency: Ints, value: Floats) -> Floats:
        """The least score, at each price, of a plan that known plans do not beat somewhere in that price's budgets.

        Args:
            latency: Latencies of known plans in ns, ascending; the first is that of the first corner.
            value: Values of the known plans, ascending.
        """
        # Budgets fall into ranges within which neither the best known plan nor the edge changes.
        begin = np.unique(np.concatenate([latency, self.latency]))
        end = np.append(
            begin[1:] - 1, begin[-1]
        )  # in whole ns; behind the last corner the price is 0, and any end will do
        known = value[np.searchsorted(latency, begin, side="right") - 1]
        edge = np.searchsorted(self.latency, begin, side="right") - 1
        score = known - self.price[edge] * end  # at the end of its range a known plan is easiest to beat
        least: Floats = np.minimum.reduceat(score, np.searchsorted(begin, self.latency))
        return least - self.slack

    def raised(self, floor: Floats, share: float) -> Floats:
        """A floor moved towards the best scores there are, until only a share of the distance is left."""
        best: Floats = self.before[-1]
        return best - share * (best - floor)

    def admits(self, path: Path, floor: Floats) -> Mask:
        """Which edges of a path some plan that reaches the floor may use."""
        mask = np.zeros(len(path.item), np.bool_)
        for run in path.arriving:
            score = path.scores(run, self.price) + self.before[path.start[run.edges]]
            # One price at which it may pay is enough: the budget that an edge is for is not known.
            mask[run.edges] = (score >= floor - self.after[path.end[run.edges]]).any(axis=1)
        return mask

    def threshold(self, node: int, floor: Floats, latency: Ints) -> Floats:
        """The least value at which partial plans that end at a node with these latencies can reach the floor.

        The exact threshold is the least of one line per price, so it is concave, and between the points of a grid its
        chords lie below it: what they reject, it rejects.
        """
        grid = np.linspace(float(latency.min()), float(latency.max()), GRID)
        exact = (np.outer(grid, self.price) + (floor - self.after[node])).min(axis=1)  # any one price may admit it
        # Lowered by what rounding may have raised it by, so that nothing on the frontier is rejected.
        least: Floats = np.interp(latency, grid, exact - 8 * EPSILON * np.abs(exact).max())
        return least


def _slopes(latency: Ints, value: Floats) -> Floats:
    return np.diff(value) / np.diff(latency)


def _hull(path: Path, latency: Ints, value: Floats, price: Floats) -> Hull:
    before = np.full((path.nodes, len(price)), -np.inf)  # a node at which no block ends stays out of reach
    before[0] = 0.0
    after = before[::-1].copy()
    for run in path.arriving:
        before[run.nodes] = run.most(before[path.start[run.edges]] + path.scores(run, price))
    for run in reversed(path.leaving):
        after[run.nodes] = run.most(after[path.end[run.edges]] + path.scores(run, price))
    # A sum of n terms is off by at most n * EPSILON times the sum of their sizes, which is at most n of the largest.
    largest = np.abs(path.value).max(initial=0.0) + price * path.latency.max(initial=0)
    return Hull(latency, value, price, before, after, 8 * EPSILON * path.nodes**2 * largest)


def _best_plans(path: Path, gain: Floats, price: Floats) -> tuple[Ints, Floats]:
    """Latency and value of the plan of largest gain * value - price * latency, for each pair of weights."""
    shape = (path.nodes, len(price))
    score, latency, value = np.full(shape, -np.inf), np.zeros(shape, np.int64), np.zeros(shape)
    score[0] = 0.0
    columns = np.arange(len(price))
    for run in path.arriving:
        start = path.start[run.edges]
        scores = score[start] + path.scores(run, price, gain)
        best = run.best(scores)  # latency and value of that very plan are carried along: a score tells neither
        score[run.nodes] = scores[best, columns]
        latency[run.nodes] = latency[start[best], columns] + path.latency[run.edges][best]
        value[run.nodes] = value[start[best], columns] + path.value[run.edges][best]
    return latency[-1], value[-1]
