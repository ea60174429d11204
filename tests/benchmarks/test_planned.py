"""Methods that plan, as they are compared: what they have on offer."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.methods.bench import Bench
from benchmarks.methods.cases import CASES
from benchmarks.methods.planned import Planned


def test_widths_that_a_network_does_not_offer_are_no_setting() -> None:
    """There is then nothing to pick between, and no trial to train: nothing is opened, measured or planned."""
    bench = Bench("none", replace(CASES["mobilenet_v2"], widths=("1.0,0.5",)))
    assert list(Planned("fewer widths", "joint", widths=1).rungs(bench)) == []
