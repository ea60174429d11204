"""Tables of widths become the problem they describe; a row that contradicts another is named."""

from __future__ import annotations

from decimal import Decimal
from itertools import combinations, pairwise, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_layermerge.errors import ExitCode, TableError
from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.methods.base import Method
from trt_layermerge.planning.methods.depth import Depth
from trt_layermerge.planning.methods.joint import Joint
from trt_layermerge.planning.methods.layer_only import LayerOnly
from trt_layermerge.planning.methods.layermerge import LayerMerge
from trt_layermerge.planning.methods.width_only import WidthOnly
from trt_layermerge.planning.tables import read_latencies
from trt_layermerge.planning.tabulated import fastest_intervals, problem_from_tables

LATENCY = """start,end,kernel,in_channels,out_channels,latency_ms
0,1,3,3,16,1
0,1,3,3,8,0.5
1,2,3,16,32,2
1,2,3,8,32,1.5
2,3,3,32,16,2
2,3,3,32,8,1.25
1,3,5,16,16,2.5
1,3,5,8,8,1
"""
IMPORTANCE = """start,end,kernel,importance,tensors,channels
0,1,3,0,,
1,2,3,0,,
2,3,3,0,,
1,3,5,-1,,
,,,-0.5,3|1,8
"""


def write(folder: Path, latency: str = LATENCY, importance: str = IMPORTANCE) -> tuple[Path, Path]:
    paths = folder / "latency.csv", folder / "importance.csv"
    for path, text in zip(paths, (latency, importance), strict=True):
        path.write_text(text)
    return paths


def points(method: Method, folder: Path, *tables: str) -> list[tuple[float, float]]:
    frontier = solve(problem_from_tables(method, *write(folder, *tables)))
    return [(latency / 1e6, value) for latency, value in zip(frontier.latency_ns, frontier.value, strict=True)]


def test_tensors_that_narrow_together_do(tmp_path: Path) -> None:
    assert points(WidthOnly(), tmp_path) == [(3.25, -0.5), (5.0, 0.0)]
    assert points(Joint(), tmp_path) == [(1.5, -1.5), (3.25, -0.5), (5.0, 0.0)]
    problem = problem_from_tables(Joint(), *write(tmp_path))
    assert [group.key for group in problem.groups] == ["1|3"] and problem.original_ns == 5_000_000
    (width,) = solve(problem).fastest.widths
    assert (width.group, width.channels, width.full, width.value) == ("1|3", 8, 16, -0.5)


def test_without_widths_the_rows_of_all_channels_are_planned(tmp_path: Path) -> None:
    wide = [(3.5, -1.0), (5.0, 0.0)]
    assert points(Joint(widths="1.0"), tmp_path) == points(LayerMerge(), tmp_path) == wide
    assert points(LayerOnly(), tmp_path) == points(WidthOnly(widths="1.0"), tmp_path) == [(5.0, 0.0)]
    assert points(Depth(), tmp_path) == wide
    rows = "".join(row + "\n" for row in IMPORTANCE.splitlines() if not row.startswith(",,,"))
    assert points(LayerMerge(), tmp_path, LATENCY, rows) == wide
    assert [one.latency_ns for one in fastest_intervals(Depth(), write(tmp_path)[0]) if one.end == 3] == [
        3_500_000,
        2_500_000,
        2_000_000,
    ]


def test_all_channels_are_the_most_that_a_tensor_has(tmp_path: Path) -> None:
    table = read_latencies(write(tmp_path)[0])
    assert table.full == {0: 3, 1: 16, 2: 32, 3: 16}
    assert [row.latency_ns for row in table.wide.rows] == [1_000_000, 2_000_000, 2_000_000, 2_500_000]


def test_a_row_of_all_channels_may_be_there(tmp_path: Path) -> None:
    whole = IMPORTANCE + ",,,0,1|3,16\n"
    assert points(Joint(), tmp_path, LATENCY, whole) == points(Joint(), tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.decimals(0, 12, places=6))
def test_no_plan_is_over_its_budget_and_none_within_it_is_better(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, budget_ms: Decimal
) -> None:
    length = data.draw(st.integers(1, 3))
    narrow = {tensor: data.draw(st.integers(-8, 0)) / 8 for tensor in range(1, length)}
    blocks = data.draw(st.sets(st.sampled_from([(s, e) for s in range(length) for e in range(s + 1, length + 1)])))
    blocks |= {(layer, layer + 1) for layer in range(length)}
    worth = {block: data.draw(st.integers(-8, 0)) / 8 for block in sorted(blocks)}
    exact = {
        (s, e, read, written): data.draw(st.decimals(0, 4, places=7))
        for s, e in sorted(blocks)
        for read, written in product((8, 4) if s in narrow else (8,), (8, 4) if e in narrow else (8,))
    }
    paths = write(
        tmp_path_factory.mktemp("tables"),
        "start,end,in_channels,out_channels,latency_ms\n"
        + "".join(f"{s},{e},{read},{written},{latency}\n" for (s, e, read, written), latency in exact.items()),
        "start,end,importance,tensors,channels\n"
        + "".join(f"{s},{e},{value},,\n" for (s, e), value in worth.items())
        + "".join(f",,{value},{tensor},4\n" for tensor, value in narrow.items()),
    )
    every = []
    cuts = [cut for count in range(length) for cut in combinations(range(1, length), count)]
    for cut, widths in product(cuts, product((8, 4), repeat=len(narrow))):
        channels, plan = dict(zip(narrow, widths, strict=True)), list(pairwise((0, *cut, length)))
        if blocks.issuperset(plan):
            latency = sum(exact[s, e, channels.get(s, 8), channels.get(e, 8)] for s, e in plan)
            named = {tensor for block in plan for tensor in block if channels.get(tensor) == 4}
            every.append((latency, sum(worth[block] for block in plan) + sum(narrow[one] for one in named)))
    within = [value for latency, value in every if latency <= budget_ms]
    frontier = solve(problem_from_tables(Joint(), *paths))
    if within:
        plan = frontier.best(int(budget_ms * 1_000_000) + length)  # each latency is rounded up to whole ns
        assert plan.objective >= max(within)
    for index in range(len(frontier)):
        plan = frontier.plan(index)
        channels = {int(width.group): width.channels for width in plan.widths}
        taken = sum(exact[i.start, i.end, channels.get(i.start, 8), channels.get(i.end, 8)] for i in plan.items)
        assert taken * 1_000_000 <= plan.latency_ns


WRONG = [
    (LATENCY.replace("out_channels", "outs"), IMPORTANCE, "unknown column 'outs'"),
    ("start,end,in_channels,latency_ms\n0,1,3,1\n", IMPORTANCE, "a block reads and writes"),
    (LATENCY.replace("0,1,3,3,8", "0,1,3,3,0"), IMPORTANCE, r"latency\.csv: row 2 .*at least one channel"),
    (LATENCY + "0,1,3,3,8,1\n", IMPORTANCE, r"latency\.csv: row 9 .*the same as row 2"),
    (LATENCY + "1,2,3,8,24,1\n", IMPORTANCE, r"latency\.csv: row 9 .*no importance for tensor 2 of 24 channels"),
    (LATENCY + "1,2,3,4,32,1\n", IMPORTANCE, r"latency\.csv: row 9 .*no importance for tensor 1 of 4 channels"),
    (LATENCY + "1,3,5,16,8,1\n", IMPORTANCE, r"latency\.csv: row 9 .*tensors 1 and 3 are one group"),
    (LATENCY, IMPORTANCE.replace(",channels", ",count"), "unknown column 'count'"),
    (LATENCY, "start,end,kernel,importance,tensors\n0,1,3,0,\n", "a width is of tensors"),
    (LATENCY, IMPORTANCE.replace("3|1", "3-1"), r"importance\.csv: row 5 .*tensors is '3-1'"),
    (LATENCY, IMPORTANCE.replace("3|1,8", "3|1,few"), "row 5 .*channels is 'few'"),
    (LATENCY, IMPORTANCE.replace("3|1,8", "3|1,4"), r"row 5 .*latency\.csv has no latency of 4 channels in tensor 1"),
    (LATENCY, IMPORTANCE.replace("3|1,8", "3|2,8"), "row 5 .*tensors 2 and 3 have 32 and 16 channels"),
    (LATENCY, IMPORTANCE.replace("3|1,8", "3|4,8"), "row 5 .*does not say how many channels tensor 4 has"),
    (LATENCY, IMPORTANCE.replace(",,,-0.5", "0,,,-0.5"), "row 5 .*start is 0, in a row of tensors"),
    (LATENCY, IMPORTANCE.replace("0,1,3,0,,", "0,1,3,0,,8"), "row 1 .*channels without tensors"),
    (LATENCY, IMPORTANCE + ",,,-0.5,1|3,8\n", "row 6 .*the same as row 5"),
    (LATENCY, IMPORTANCE + ",,,-0.5,3,8\n", r"row 6 .*tensor 3 is one of 1\|3, says row 5"),
    (LATENCY, IMPORTANCE + ",,,-0.5,1|3,16\n", "row 6 .*these are all channels"),
    (LATENCY, IMPORTANCE.replace("-0.5", ""), "row 5 .*importance is ''"),
]


@pytest.mark.parametrize(("latency", "importance", "fault"), WRONG)
def test_a_wrong_row_is_named(tmp_path: Path, latency: str, importance: str, fault: str) -> None:
    with pytest.raises(TableError, match=fault) as error:
        points(Joint(), tmp_path, latency, importance)
    assert error.value.exit_code is ExitCode.BAD_INPUT
