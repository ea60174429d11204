"""What rows say together: methods side by side, how far seeds lie apart, and whether rows made again agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev, variance
from typing import Any

from .registry import METHODS

Row = Mapping[str, Any]
Group = tuple[float, str, bool]
"""Budget, method, and whether it is trained."""

OURS, PEER = "joint-width", "torch-pruning"
"""Which of ours is held against the others, said before any row was made: the one that may do most."""

SIDE_BY_SIDE = ("joint", OURS, PEER)

SURE = 2.0
"""Standard errors from which on a difference is said to be more than chance."""


@dataclass(frozen=True)
class SeedSpread:
    """How far trainings lie apart that differ by their seed alone.

    Attributes:
        points: Standard deviation of one seed, in percentage points, pooled over all methods and budgets.
        degrees: Of freedom that it was estimated with.
    """

    points: float
    degrees: int

    @classmethod
    def of(cls, groups: Mapping[Group, Sequence[Row]]) -> SeedSpread | None:
        """That of trained rows; ``None`` where each has one seed."""
        there = [rows for (_, _, trained), rows in groups.items() if trained and not why_not(rows[0])]
        several = [points_gained(rows) for rows in there if len(rows) > 1]
        if not several:
            return None
        degrees = sum(len(one) - 1 for one in several)
        return cls(sqrt(sum((len(one) - 1) * variance(one) for one in several) / degrees), degrees)

    def chance(self, seeds: int, others: int) -> float:
        """What two means of so many seeds may differ by, and be alike."""
        return SURE * self.points * sqrt(1 / seeds + 1 / others)


def grouped(rows: Iterable[Row]) -> dict[Group, list[Row]]:
    """Rows that differ by their seed alone; they are of one network, for settings are picked once for all seeds."""
    found = defaultdict[Group, list[Row]](list)
    for row in rows:
        found[row["budget"], row["method"], row["seed"] is not None].append(row)
    return found


def points_gained(rows: Sequence[Row], before: float = 0.0) -> list[float]:
    """What each seed gains, in percentage points."""
    return [100 * (row["accuracy"] - before) for row in rows]


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and, of several, their standard deviation."""
    return f"{mean(values):+.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def side_by_side(groups: Mapping[Group, Sequence[Row]], before: float, *, trained: bool) -> Iterator[str]:
    """A line a budget: ours, Torch-Pruning, the best of the others, and what ours is ahead by."""
    reached = {key: rows for key, rows in groups.items() if key[2] == trained and "accuracy" in rows[0]}
    spread = SeedSpread.of(groups)
    yield f"| asked for | {' | '.join(METHODS[one].title for one in SIDE_BY_SIDE)} | best of the rest | ours ahead by |"
    yield "|---" * (len(SIDE_BY_SIDE) + 3) + "|"
    for budget in sorted({budget for budget, method, _ in reached if METHODS[method].converts is None}):
        here = {method: rows for (asked, method, _), rows in reached.items() if asked == budget}
        others = [one for one in here if METHODS[one].converts is None and one not in ("joint", OURS, "width")]
        rest = [one for one in others if one != PEER]
        cells = [_cell(here[one], before) if one in here else "" for one in SIDE_BY_SIDE]
        best = max(rest, key=lambda one: mean(points_gained(here[one])), default=None)
        cells.append(f"{METHODS[best].title}: {_cell(here[best], before)}" if best else "")
        ahead = ""
        if OURS in here and others:
            rival = here[max(others, key=lambda one: mean(points_gained(here[one])))]
            ahead = _difference(here[OURS], rival, spread if trained else None)
        yield f"| {budget:g}x | {' | '.join(cells)} | {ahead} |"


def why_not(row: Row) -> str:
    """Why a row has no network; empty where it has one."""
    if "accuracy" in row:
        return ""
    fastest = row.get("unreachable")
    return "failed" if fastest is None else f"not reached: {fastest:.2f}x" if fastest else "none"


def _cell(rows: Sequence[Row], before: float) -> str:
    if why := why_not(rows[0]):
        return why
    speed = rows[0].get("speedup", rows[0].get("aimed"))
    return mean_and_spread(points_gained(rows, before)) + (f" at {speed:.2f}x" if speed else "")


def _difference(mine: Sequence[Row], others: Sequence[Row], spread: SeedSpread | None) -> str:
    found = mean(points_gained(mine)) - mean(points_gained(others))
    if spread is None:
        return f"{found:+.2f}"
    sure = abs(found) > spread.chance(len(mine), len(others))
    return f"{found:+.2f}, {'more than chance' if sure else 'chance'}"


def repeated(made: Mapping[str, Any], committed: Mapping[str, Any]) -> Iterator[str]:
    """Rows of results that were made again, beside those that are committed: a line each."""
    known, spread = grouped(committed["rows"]), SeedSpread.of(grouped(committed["rows"]))
    if spread is None:
        yield "committed rows have one seed each: how far seeds lie apart is not known"
    else:
        yield f"seeds lie {spread.points:.2f} points apart (standard deviation, {spread.degrees} degrees of freedom)"
    for (budget, method, trained), rows in sorted(grouped(made["rows"]).items()):
        before = known.get((budget, method, trained))
        name = f"{budget:g}x, {METHODS[method].title}{'' if trained else ', untrained'}"
        if before is None:
            yield f"{name}: not committed"
        else:
            now, was = _cell(rows, made["original"]["accuracy"]), _cell(before, committed["original"]["accuracy"])
            yield f"{name}: {now}; committed {was}{_agrees(rows, before, spread if trained else None)}"


def _agrees(rows: Sequence[Row], before: Sequence[Row], spread: SeedSpread | None) -> str:
    if spread is None or why_not(rows[0]) or why_not(before[0]):
        return ""
    allowed = spread.chance(len(rows), len(before))
    apart = abs(mean(points_gained(rows)) - mean(points_gained(before)))
    return f": {'within' if apart <= allowed else 'DIFFERS by more than'} {allowed:.2f}, two standard errors"
