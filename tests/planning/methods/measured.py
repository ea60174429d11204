"""Measured choices of one layer, one of each kind."""

from __future__ import annotations

from dataclasses import replace

from trt_layermerge.planning.candidate import Candidate
from trt_layermerge.planning.problem import Problem

KEEP = Candidate(0, 0, 1, "keep", "keep", 10, reducible=False, loss_before=0.5, loss_after=0.5)
MERGE = replace(KEEP, key="merge", kind="merge", loss_after=0.75)
FIT = replace(KEEP, key="fit", kind="fit", loss_after=0.25)
GONE = replace(KEEP, key="gone", kind="identity", reducible=True, loss_after=2.5)
FIXED = replace(GONE, key="fixed", reducible=False)
ALL = (KEEP, MERGE, FIT, GONE, FIXED)


def values(problem: Problem) -> dict[str, float]:
    return {item.key: item.value for item in problem.items}
