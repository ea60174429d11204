"""What the comparison of methods says of rows: how far seeds lie apart, who is ahead, and whether a row is repeated."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import variance
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.methods.standings import SeedSpread, grouped, repeated, side_by_side

BEFORE = 0.93
accuracies = st.lists(st.floats(0.85, 0.95), min_size=2, max_size=4)


def rows(method: str, found: Sequence[float], budget: float = 2.0) -> list[dict[str, Any]]:
    """Trained rows of seeds 0, 1, ..."""
    return [
        {"method": method, "budget": budget, "seed": seed, "accuracy": one, "speedup": budget}
        for seed, one in enumerate(found)
    ]


def results(*groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """As they are written."""
    return {"original": {"accuracy": BEFORE}, "rows": [row for group in groups for row in group]}


@given(accuracies, accuracies)
def test_the_spread_is_that_of_seeds_and_not_of_methods(one: list[float], other: list[float]) -> None:
    spread = SeedSpread.of(grouped([*rows("joint", one), *rows("torch-pruning", other)]))
    assert spread is not None
    assert spread.degrees == len(one) + len(other) - 2
    within = (len(one) - 1) * variance(one) + (len(other) - 1) * variance(other)
    assert spread.points == pytest.approx(100 * (within / spread.degrees) ** 0.5, rel=1e-6, abs=1e-9)


def test_of_one_seed_each_and_of_what_is_not_reached_there_is_none() -> None:
    missed = [{"method": "depth", "budget": 2.0, "seed": seed, "unreachable": 1.1} for seed in range(3)]
    assert SeedSpread.of(grouped([*rows("joint", [0.92]), *missed])) is None


@pytest.mark.parametrize(("again", "verdict"), [(0.9195, ": within 0."), (0.90, ": DIFFERS by more than 0.")])
def test_a_row_made_again_is_held_against_the_spread(again: float, verdict: str) -> None:
    said = list(repeated(results(rows("joint", [again])), results(rows("joint", [0.919, 0.920, 0.921]))))
    assert len(said) == 2
    assert verdict in said[1]


def test_what_is_not_committed_is_said() -> None:
    said = list(repeated(results(rows("width", [0.9])), results(rows("joint", [0.9, 0.91]))))
    assert said[1].endswith("not committed")


def test_what_one_of_them_has_no_network_of_is_said() -> None:
    none = [{"method": "torch-pruning", "budget": 2.0, "seed": 0, "unreachable": 0.0}]
    said = list(repeated(results(none), results(rows("torch-pruning", [0.92, 0.92]))))
    assert said[1] == "2x, Torch-Pruning 1.6: none; committed -1.00 ± 0.00 at 2.00x"


@pytest.mark.parametrize(
    ("ours", "ahead"),
    [([0.925, 0.926], "| +1.00, more than chance |"), ([0.9155, 0.9165], "| +0.05, chance |")],
)
def test_ours_is_held_against_the_best_other(ours: list[float], ahead: str) -> None:
    others = rows("torch-pruning", [0.90, 0.90]), rows("even-cut", [0.915, 0.916])
    line = list(side_by_side(grouped(results(rows("joint-width", ours), *others)["rows"]), BEFORE, trained=True))[-1]
    assert line.endswith(ahead)
    assert "even cut of depth: -1.45 ± 0.07 at 2.00x" in line
