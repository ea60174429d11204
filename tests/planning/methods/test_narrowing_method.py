"""Which widths are on offer, and what others make of candidates that have widths."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.planning.methods.measured import FIT, KEEP
from trt_layermerge.errors import InputError, UsageError
from trt_layermerge.planning.candidate import MeasuredGroup, MeasuredWidth
from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.methods.joint import Joint
from trt_layermerge.planning.methods.layermerge import LayerMerge
from trt_layermerge.planning.methods.width_only import WidthOnly
from trt_layermerge.planning.widths import WidthGroup, WidthOption

WIDTHS = tuple(MeasuredWidth(channels, 0.5, 0.5 + 1 / channels, latency_ns=-1) for channels in (8, 12, 4))
GROUP = MeasuredGroup("g", 16, (*WIDTHS, MeasuredWidth(2, 0.0, 0.0, importance=-3.0)))
OTHER = MeasuredGroup("h", 6, (MeasuredWidth(3, 0.0, 1.0),))
CANDIDATES = [
    replace(one, latency_ns=channels, widths=(("g", channels), ("h", 6)))
    for one in (KEEP, FIT)
    for channels in (16, 12, 8, 4, 2)
]


@pytest.mark.parametrize(
    ("widths", "channels"),
    [
        ("all", [16, 8, 12, 4, 2]),
        ("1.0", []),
        ("1", []),
        ("1.0,0.75,0.5,0.25", [16, 8, 12, 4]),
        ("0.5", [16, 8]),
        (" .3 , 0.5 ", [16, 8, 4]),
        ("0.625", [16, 12]),  # as near to 8 as to 12
        ("0.01", [16, 2]),
    ],
)
def test_shares_are_of_all_channels(widths: str, channels: list[int]) -> None:
    offered = {group.key: [one.channels for one in group.options] for group in Joint(widths=widths).offered([GROUP])}
    assert offered == ({"g": channels} if channels else {})


@pytest.mark.parametrize("widths", ["", "0", "1.5", "-0.5", "half", "0.5,", "1e0", "1/2", "nan", "9" * 5000])
def test_shares_that_cannot_be_are_refused(widths: str) -> None:
    with pytest.raises(UsageError, match="method width: widths of"):
        WidthOnly(widths=widths)


def test_a_width_is_worth_the_change_of_the_loss_or_what_a_table_says() -> None:
    (group,) = Joint().offered([GROUP])
    assert group == WidthGroup(
        "g",
        (
            WidthOption(16, 0.0),
            WidthOption(8, -0.125, -1),
            WidthOption(12, pytest.approx(-1 / 12), -1),
            WidthOption(4, -0.25, -1),
            WidthOption(2, -3.0),
        ),
    )


def test_a_group_that_is_not_narrowed_is_not_there() -> None:
    problem = Joint(widths="0.5").problem([1], CANDIDATES, 0, 100, [GROUP, replace(OTHER, narrower=())])
    assert [group.key for group in problem.groups] == ["g"]
    assert {(item.key, item.widths) for item in problem.items} == {
        (key, (("g", channels),)) for key in ("keep", "fit") for channels in (16, 8)
    }


def test_shares_of_one_are_depth_alone() -> None:
    plain = [replace(one, latency_ns=16) for one in (KEEP, FIT)]
    assert Joint(widths="1.0").problem([1], CANDIDATES, 0, 100, [GROUP, OTHER]) == Joint().problem([1], plain, 0, 100)


def test_the_papers_methods_never_narrow() -> None:
    plain = replace(KEEP, latency_ns=16)
    problem = LayerMerge().problem([1], CANDIDATES, 0, 100, [GROUP, OTHER])
    assert problem == LayerMerge().problem([1], [plain], 0, 100)


def test_width_keeps_every_layer() -> None:
    problem = WidthOnly().problem([1], CANDIDATES, 0, 100, [GROUP, OTHER])
    assert {item.kind for item in problem.items} == {"keep"} and len(problem.items) == 5
    (narrowest,) = solve(problem).fastest.widths[:1]
    assert (narrowest.channels, narrowest.full) == (2, 16)


@pytest.mark.parametrize("method", [Joint(), LayerMerge()])
def test_a_group_that_nobody_knows_is_refused(method: Joint | LayerMerge) -> None:
    with pytest.raises(InputError, match="there is no group 'g'"):
        method.problem([1], CANDIDATES, 0, 100, [OTHER])
