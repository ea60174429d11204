"""Plain tables become the problem they describe, in whatever order; a wrong one is named with its row."""

from __future__ import annotations

import random
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_layermerge.errors import ExitCode, InfeasibleBudgetError, TableError
from trt_layermerge.planning.confidence import plan_for
from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.methods.base import Method
from trt_layermerge.planning.methods.depth import Depth
from trt_layermerge.planning.methods.joint import Joint
from trt_layermerge.planning.methods.layer_only import LayerOnly
from trt_layermerge.planning.methods.layermerge import LayerMerge
from trt_layermerge.planning.tables import read_importances, read_latencies
from trt_layermerge.planning.tabulated import fastest_intervals, problem_from_tables
from trt_layermerge.planning.views import fastest_csv

LATENCY = """start,end,kernel,depthwise,latency_ms
0,1,3,0,1.0
1,2,3,1,0.5
1,2,1,1,0.25
0,2,5,0,1.2
0,2,3,0,0.9
"""
IMPORTANCE = """end,start,depthwise,kernel,importance
2,0,0,3,0.5
2,0,0,5,0.75
2,1,1,1,0.625
2,1,1,3,1
1,0,0,3,1
"""
BLOCKS = "start,end,latency_ms\n0,1,1\n1,2,1\n2,3,1\n0,2,1.5\n0,3,4\n"
WORTH = "start,end,importance\n0,1,0\n1,2,0\n2,3,0.5\n0,2,-1\n0,3,-2\n"


def write(folder: Path, latency: str = LATENCY, importance: str = IMPORTANCE) -> tuple[Path, Path]:
    paths = folder / "latency.csv", folder / "importance.csv"
    for path, text in zip(paths, (latency, importance), strict=True):
        path.write_bytes(text.encode())
    return paths


def points(method: Method, folder: Path, *tables: str) -> list[tuple[int, float]]:
    frontier = solve(problem_from_tables(method, *write(folder, *tables)))
    return list(zip(frontier.latency_ns.tolist(), frontier.value.tolist(), strict=True))


def test_rows_are_joined_by_their_key(tmp_path: Path) -> None:
    problem = problem_from_tables(LayerMerge(), *write(tmp_path))
    items = problem.items
    assert {(one.start, one.end, one.kernel, one.depthwise): (one.latency_ns, one.value) for one in items} == {
        (0, 1, 3, False): (1_000_000, 1.0),
        (1, 2, 3, True): (500_000, 1.0),
        (1, 2, 1, True): (250_000, 0.625),
        (0, 2, 5, False): (1_200_000, 0.75),
        (0, 2, 3, False): (900_000, 0.5),
    }
    assert (problem.original_ns, problem.fixed_ns, problem.lengths) == (1_500_000, 0, (2,))
    assert {item.key: item.kind for item in problem.items} == {
        "0-1 k3 dense": "keep",
        "1-2 k3 dw": "keep",
        "1-2 k1 dw": "identity",
        "0-2 k5 dense": "merge",
        "0-2 k3 dense": "merge",
    }


@given(st.randoms())
def test_the_order_of_rows_changes_nothing(tmp_path_factory: pytest.TempPathFactory, shuffle: random.Random) -> None:
    def shuffled(text: str) -> str:
        header, *rows = text.splitlines()
        shuffle.shuffle(rows)
        return "\n".join([header, *rows])

    folder = tmp_path_factory.mktemp("tables")
    assert points(Joint(), folder, shuffled(LATENCY), shuffled(IMPORTANCE)) == points(Joint(), folder)


def test_each_method_sees_its_own_rows(tmp_path: Path) -> None:
    assert points(Joint(), tmp_path) == [(900_000, 0.5), (1_200_000, 0.75), (1_250_000, 1.625), (1_500_000, 2.0)]
    assert points(LayerMerge(), tmp_path) == points(Joint(), tmp_path)
    assert points(LayerOnly(), tmp_path) == [(1_250_000, 1.625), (1_500_000, 2.0)]
    assert points(Depth(), tmp_path, BLOCKS, WORTH) == [(2_500_000, -0.5), (3_000_000, 0.5)]


def test_depth_reads_flags_and_normalises(tmp_path: Path) -> None:
    flags = "start,end,start_activation,end_activation,importance\n"
    rows = "0,1,1,1,0\n1,2,1,1,0\n2,3,1,1,1\n0,2,1,0,-0.5\n2,3,0,1,0.75\n0,2,1,1,-1\n0,3,1,1,-2\n"
    assert points(Depth(), tmp_path, BLOCKS, flags + rows) == [(2_500_000, 0.25), (3_000_000, 1.0)]
    mean = (0 + 0 + 1 + 0.75) / 4
    assert points(Depth(alpha=1.0), tmp_path, BLOCKS, flags + rows) == [
        (2_500_000, 0.25 - 2 * mean),
        (3_000_000, 1.0 - 3 * mean),
    ]


def test_the_table_of_stage_one(tmp_path: Path) -> None:
    text = fastest_csv(fastest_intervals(Depth(), write(tmp_path, BLOCKS)[0]))
    assert text == (
        "start,end,latency_ms,breaks\n0,1,1,0|1\n0,2,1.5,0|2\n0,3,2.5,0|2|3\n1,2,1,1|2\n1,3,2,1|2|3\n2,3,1,2|3\n"
    )


@given(st.decimals(0, 10**8, allow_nan=False, places=9) | st.decimals(0, 1, allow_nan=False, allow_infinity=False))
def test_latencies_become_ns_rounded_up_exactly(tmp_path_factory: pytest.TempPathFactory, latency: object) -> None:
    path = tmp_path_factory.mktemp("tables") / "latency.csv"
    path.write_text(f"start,end,latency_ms\n0,1,{latency}\n")
    (row,) = read_latencies(path).rows
    assert row.latency_ns - 1 < Fraction(str(latency)) * 10**6 <= row.latency_ns


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0.1", 100_000),
        ("0.0000001", 1),
        ("1e-9999", 1),
        ("2.5E-3", 2_500),
        ("0.300000" + "0" * 70 + "1", 300_001),
        (".5", 500_000),
        ("7.", 7_000_000),
        ("0", 0),
        ("-0.0", 0),
        (" 1 ", 1_000_000),
        ('"1"', 1_000_000),
    ],
)
def test_some_latencies(tmp_path: Path, text: str, nanoseconds: int) -> None:
    path = write(tmp_path, f"start,end,latency_ms\r\n\r\n0,1,{text}\r\n")[0]
    assert [row.latency_ns for row in read_latencies(path).rows] == [nanoseconds]


def test_an_interval_is_rounded_outwards(tmp_path: Path) -> None:
    columns = "start,end,latency_ms,latency_low_ms,latency_high_ms\n"
    latency, importance = write(tmp_path, columns + "0,1,1,0.9000005,1.1000005\n", "start,end,importance\n0,1,0\n")
    (item,) = problem_from_tables(Joint(), latency, importance).items
    assert (item.low_ns, item.latency_ns, item.high_ns) == (900_000, 1_000_000, 1_100_001)


def test_the_original_may_be_given_or_stood_in_for(tmp_path: Path) -> None:
    paths = write(
        tmp_path, "start,end,latency_ms\n0,2,5\n2,3,1\n0,3,4\n", "start,end,importance\n0,2,1\n2,3,1\n0,3,1\n"
    )
    assert problem_from_tables(Joint(), *paths).original_ns == 6_000_000
    assert problem_from_tables(Joint(), *paths, original_ns=9, fixed_ns=-1).original_ns == 9
    assert problem_from_tables(Joint(), *paths, fixed_ns=-1).original_ns == 5_999_999
    assert read_latencies(paths[0]).original_ns is None


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([Joint(), LayerMerge(), Depth(), LayerOnly()]), st.decimals(0, 12, places=6))
def test_no_plan_of_any_method_is_over_its_budget(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, method: Method, budget_ms: Decimal
) -> None:
    length = data.draw(st.integers(1, 4))
    blocks = [(s, e) for s in range(length) for e in range(s + 1, length + 1)]
    rows = [(s, e, k) for s, e in blocks for k in ([3] if method == Depth() else [1, 3, 5])]
    rows = data.draw(st.lists(st.sampled_from(rows), unique=True)) + [(i, i + 1, 7) for i in range(length)]
    rows = list({row[:2] if method == Depth() else row: row for row in rows}.values())
    exact = {row: data.draw(st.decimals(0, 4, places=9)) for row in rows}
    worth = {row: data.draw(st.floats(-1, 1)) for row in rows}
    paths = write(
        tmp_path_factory.mktemp("tables"),
        "start,end,kernel,latency_ms\n" + "".join(f"{s},{e},{k},{exact[s, e, k]}\n" for s, e, k in rows),
        "start,end,kernel,importance\n" + "".join(f"{s},{e},{k},{worth[s, e, k]}\n" for s, e, k in rows),
    )
    frontier = solve(problem_from_tables(method, *paths))
    budget_ns = int(budget_ms * 1_000_000)
    if budget_ns < frontier.fastest.latency_ns:
        with pytest.raises(InfeasibleBudgetError):
            frontier.best(budget_ns)
        return
    latency = {f"{s}-{e} k{k}": exact[s, e, k] for s, e, k in rows}
    for plan in (*frontier.best_plans(budget_ns, 4), frontier.best(budget_ns), plan_for(frontier, budget_ns, 0.9).plan):
        assert sum(latency[key] for key in plan.keys) <= budget_ms


BAD_LATENCIES = [
    ("0,1,3,0,nan", r"row 1 \(line 2\): latency_ms is 'nan'"),
    ("0,1,3,0,inf", "row 1 .*not a finite number"),
    ("0,1,3,0,-0.1", "row 1 .*not negative"),
    ("0,1,3,0,1e12", "row 1 .*eleven days"),
    ("0,1,3,0,1e99999", "row 1 .*not a finite number"),
    ("0,1,3,0,fast", "row 1 .*'fast'"),
    ("0,1,3,0,1_0", "row 1 .*'1_0'"),
    ("0,1,3,0,\u0661", "row 1 .*not a finite number"),
    ("0,1,3,0,", "row 1 .*''"),
    ("0,1,3,2,1", "row 1 .*depthwise is '2'"),
    ("0,1,3.5,0,1", "row 1 .*kernel is '3.5'"),
    ("0,1,-3,0,1", "row 1 .*kernel is '-3'"),
    ("a,1,3,0,1", "row 1 .*start is 'a'"),
    ("1,1,3,0,1", "row 1 .*not after its start"),
    ("0,9999,3,0,1", "row 1 .*at most 2000"),
    ("0,1,3,0", r"row 1 \(line 2\): 4 cells under 5 columns"),
    ("0,1,3,0,1,1", "row 1 .*6 cells"),
    (",,,,", "row 1 .*start is ''"),
    ("0,1,3,0,1\n1,2,3,0,1\n0,1,3,0,2", r"row 3 \(line 4\): the same as row 1 \(line 2\)"),
    ("1,2,3,0,1\n2,3,3,0,1", "row 1 .*after layer 1, not at the input"),
    ("0,1,3,0,1\n2,3,3,0,1", r"row 1 .*at layer 1 of 3: no row leads on\n.*start 1, end 2"),
    ('0,1,3,0,"1\n', "row 1 .*no CSV"),
    ("", "no rows"),
]


@pytest.mark.parametrize(("rows", "fault"), BAD_LATENCIES)
def test_a_wrong_latency_is_named(tmp_path: Path, rows: str, fault: str) -> None:
    latency, importance = write(tmp_path, f"start,end,kernel,depthwise,latency_ms\n{rows}\n")
    with pytest.raises(TableError, match=rf"latency\.csv: (?s:.*){fault}") as error:
        problem_from_tables(Joint(), latency, importance)
    assert error.value.exit_code is ExitCode.BAD_INPUT


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no rows"),
        ("start,end\n0,1\n", "no column 'latency_ms'"),
        ("start,end,latency\n0,1,1\n", "unknown column 'latency'"),
        ("start,end,latency_ms,start\n0,1,1,0\n", "'start' is there twice"),
        ("start,end,latency_ms,latency_low_ms\n0,1,1,0\n", "an interval has two ends"),
        ("start,end,latency_ms,latency_low_ms,latency_high_ms\n0,1,1,1.1,1.2\n", "row 1 .*not within"),
        ("start,end,latency_ms,latency_low_ms,latency_high_ms\n0,1,1,0.1,nan\n", "row 1 .*latency_high_ms is 'nan'"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(TableError, match=rf"latency\.csv: .*{fault}"):
        read_latencies(write(tmp_path, text)[0])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("2,1,1,1,0.625\n", ""), r"latency\.csv: row 3 .*importance\.csv has no importance for 1-2 k1 dw"),
        (("1,0,0,3,1\n", "1,0,0,3,1\n1,0,0,5,1\n"), r"importance\.csv: row 6 .*latency\.csv has no latency"),
        (("2,1,1,1,0.625\n", "2,1,1,3,0.625\n"), r"importance\.csv: row 4 .*the same as row 3"),
        (("0.75", "nan"), r"importance\.csv: row 2 .*importance is 'nan'"),
        (("0.75", "-inf"), r"importance\.csv: row 2 .*not a finite"),
        (("0.75", "1e300"), r"importance\.csv: row 2 .*absurdly large"),
        (("importance", "value"), r"importance\.csv: the header: unknown column 'value'"),
        ((IMPORTANCE, WORTH), r"importance\.csv: its columns are without .* cannot be joined"),
        ((IMPORTANCE, "start,end,start_activation,importance\n0,1,1,1\n"), "unknown column 'start_activation'"),
    ],
)
def test_a_wrong_importance_is_named(tmp_path: Path, change: tuple[str, str], fault: str) -> None:
    with pytest.raises(TableError, match=fault):
        points(Joint(), tmp_path, LATENCY, IMPORTANCE.replace(*change))


@pytest.mark.parametrize(
    ("latency", "importance", "fault"),
    [
        (LATENCY, WORTH, r"latency\.csv: row 3 .*same block as row 2 .*one way only"),
        (BLOCKS, WORTH.replace("0,2,-1\n", ""), r"latency\.csv: row 4 .*no importance for 0-2"),
        (BLOCKS, WORTH + "1,3,0\n", r"importance\.csv: row 6 .*no latency"),
        (BLOCKS, "start,end,start_activation,importance\n0,1,1,1\n", "two boundaries"),
        (BLOCKS, "start,end,start_activation,end_activation,importance\n0,1,1,x,1\n", "row 1 .*end_activation is 'x'"),
        (BLOCKS, WORTH + "0,2,5\n", r"importance\.csv: row 6 .*the same as row 4"),
    ],
)
def test_a_wrong_table_for_depth_is_named(tmp_path: Path, latency: str, importance: str, fault: str) -> None:
    with pytest.raises(TableError, match=fault):
        points(Depth(), tmp_path, latency, importance)


def test_a_method_that_cannot_tile_the_chain_with_its_rows_says_so(tmp_path: Path) -> None:
    tables = "start,end,latency_ms\n0,2,1\n", "start,end,importance\n0,2,1\n"
    with pytest.raises(TableError, match=r"latency\.csv, .*importance\.csv: chain 0 cannot be tiled"):
        points(LayerOnly(), tmp_path, *tables)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    latency = write(tmp_path)[0]
    with pytest.raises(TableError, match=r"none\.csv: cannot read the table: No such file"):
        read_latencies(tmp_path / "none.csv")
    with pytest.raises(TableError, match=r"none\.csv: cannot read"):
        read_importances(tmp_path / "none.csv", read_latencies(latency))
    latency.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TableError, match=r"latency\.csv: not a text file"):
        read_latencies(latency)
