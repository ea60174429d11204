"""``solve`` on plain tables: what it prints, what it refuses, and that it does so without torch."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from tests.cli.refusal import refused

LATENCY = """start,end,kernel,depthwise,latency_ms
0,1,3,0,1.0
1,2,3,1,2.0
2,3,3,0,3.0
0,2,5,0,1.5
1,3,5,0,2.5
0,3,7,0,2.0
"""
IMPORTANCE = """start,end,kernel,depthwise,importance
0,3,7,0,-1.0
0,1,3,0,0
1,2,3,1,0
2,3,3,0,0
0,2,5,0,-0.25
1,3,5,0,-0.5
"""
POINTS = [(2.0, -1.0), (3.5, -0.5), (4.5, -0.25), (6.0, 0.0)]


class Tables:
    """Two tables in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, latency: str = LATENCY, importance: str = IMPORTANCE) -> list[object]:
        (self.folder / "latency.csv").write_text(latency)
        (self.folder / "importance.csv").write_text(importance)
        return ["--latency", self.folder / "latency.csv", "--importance", self.folder / "importance.csv"]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


def with_intervals(width: float) -> str:
    header, *rows = LATENCY.splitlines()
    lines = [f"{row},{float(row.split(',')[-1]) - width},{float(row.split(',')[-1]) + width}" for row in rows]
    return "\n".join([header + ",latency_low_ms,latency_high_ms", *lines])


def without(text: str, *starts: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith(starts))


def test_a_plan_as_one_object(run: Any, tables: Any) -> None:
    ran = run("solve", *tables(), "--budget", "0.75", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json == {
        "method": "joint",
        "budget_ms": 4.5,
        "latency_ms": 4.5,
        "objective": -0.25,
        "blocks": [
            {"start": 0, "end": 2, "kernel": 5, "depthwise": False, "latency_ms": 1.5, "importance": -0.25},
            {"start": 2, "end": 3, "kernel": 3, "depthwise": False, "latency_ms": 3.0, "importance": 0.0},
        ],
    }


@pytest.mark.parametrize("budget", [["--budget", "3.5ms"], ["--speedup", "1.7"], [], ["--budget", "0.6"]])
def test_a_budget_in_whatever_unit(run: Any, tables: Any, budget: list[str]) -> None:
    assert run("solve", *tables(), *budget, "--json").json["latency_ms"] == 3.5


def test_the_frontier_in_three_forms(run: Any, tables: Any) -> None:
    given = run("solve", *tables(), "--frontier", "--json").json
    points = [{"latency_ms": latency, "objective": value} for latency, value in POINTS]
    assert given == {"method": "joint", "frontier": points}
    both = run("solve", *tables(), "--budget", "0.6", "--frontier", "--json").json
    assert both["frontier"] == points and both["latency_ms"] == 3.5 and len(both["blocks"]) == 2
    rows = csv.DictReader(StringIO(run("solve", *tables(), "--frontier", "--csv").out))
    assert [(float(row["latency_ms"]), float(row["objective"])) for row in rows] == POINTS
    assert len(run("solve", *tables(), "--frontier").out.splitlines()) == len(POINTS)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_frontier_as_a_picture(run: Any, tables: Any, suffix: str) -> None:
    path = tables.folder / f"frontier.{suffix}"
    ran = run("solve", *tables(), "--budget", "0.6", "--plot", path, "--csv")
    assert (ran.code, ran.err) == (0, "") and ran.out.startswith(
        "start,end,kernel,depthwise,latency_ms,importance\n0,1"
    )
    assert path.read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"<?xml")


def test_the_best_plans_in_order(run: Any, tables: Any) -> None:
    plans = run("solve", *tables(), "--budget", "0.75", "--count", 3, "--json").json["plans"]
    assert [(plan["latency_ms"], plan["objective"]) for plan in plans] == [(4.5, -0.25), (3.5, -0.5), (2.0, -1.0)]
    rows = list(csv.DictReader(StringIO(run("solve", *tables(), "--budget", "0.75", "--count", 3, "--csv").out)))
    assert [(row["plan"], row["start"]) for row in rows] == [("1", "0"), ("1", "2"), ("2", "0"), ("2", "1"), ("3", "0")]
    assert run("solve", *tables(), "--budget", "0.75", "--count", 3).out.count("predicted") == 3


def test_a_plan_that_is_sure_enough(run: Any, tables: Any) -> None:
    unsure = run("solve", *tables(with_intervals(0.5)), "--budget", "4.5ms", "--json").json
    assert unsure["latency_ms"] == 4.5 and unsure["probability"] == pytest.approx(0.5, abs=0.03)
    sure = run("solve", *tables(with_intervals(0.5)), "--budget", "4.5ms", "--confidence", 0.95, "--json").json
    assert sure["latency_ms"] == 3.5 and sure["probability"] > 0.95
    assert "with probability" in run("solve", *tables(with_intervals(0.5)), "--budget", "4.5ms").out
    refused(run("solve", *tables(with_intervals(0.5)), "--budget", "2ms", "--confidence", 0.95), 4, "takes 2 ms")


def test_a_resolution_says_what_it_may_cost(run: Any, tables: Any) -> None:
    assert run("solve", *tables(), "--resolution", 1e-6, "--json").json["latency_ms"] == 3.5
    ran = run("solve", *tables(), "--resolution", 100, "--budget", "0.75", "--json")
    assert ran.code == 0 and "may be up to" in ran.err and ran.json["latency_ms"] <= 4.5


def test_stage_one_of_depth_needs_latencies_alone(run: Any, tables: Any) -> None:
    path = tables("start,end,latency_ms\n0,1,1\n1,2,2\n2,3,3\n0,2,1.5\n")[1]
    ran = run("solve", "--method", "depth", "--latency", path, "--fastest")
    expected = ["0,1,1,0|1", "0,2,1.5,0|2", "0,3,4.5,0|2|3", "1,2,2,1|2", "1,3,5,1|2|3", "2,3,3,2|3"]
    assert ran.out.splitlines() == ["start,end,latency_ms,breaks", *expected]
    given = run("solve", "--method", "depth", "--latency", path, "--fastest", "--json").json
    assert given["intervals"][2] == {"start": 0, "end": 3, "latency_ms": 4.5, "breaks": [0, 2, 3]}


@pytest.mark.parametrize("method", ["joint", "layermerge", "depth", "layer-only", "width"])
def test_every_method_plans(run: Any, tables: Any, method: str) -> None:
    plan = run("solve", *tables(), "--method", method, "--budget", "1", "--json").json
    assert plan["method"] == method and plan["latency_ms"] <= plan["budget_ms"] == 6.0


def test_alpha_lowers_what_depth_values(run: Any, tables: Any) -> None:
    values = IMPORTANCE.replace("1,3,0,0\n", "1,3,0,0.3\n")
    plain, weighted = (
        run("solve", *tables(importance=values), "--method", "depth", "--budget", "1", "--alpha", alpha, "--json").json
        for alpha in (0, 1)
    )
    assert (plain["objective"], len(plain["blocks"])) == (pytest.approx(0.3), 3)
    assert weighted["objective"] == pytest.approx(0.0)


WIDE = """start,end,kernel,in_channels,out_channels,latency_ms
0,1,3,3,16,1.0
0,1,3,3,8,0.5
1,2,3,16,10,2.0
1,2,3,8,10,1.0
0,2,5,3,10,1.25
"""
WORTH = """start,end,kernel,importance,tensors,channels
0,1,3,0,,
1,2,3,0,,
0,2,5,-1,,
,,,-0.25,1,8
"""


def test_widths_are_planned(run: Any, tables: Any) -> None:
    plan = run("solve", *tables(WIDE, WORTH), "--budget", "0.5", "--json").json
    assert (plan["latency_ms"], plan["objective"]) == (1.5, -0.25)
    assert plan["widths"] == [{"group": "1", "channels": 8, "of": 16, "importance": -0.25}]
    told = run("solve", *tables(WIDE, WORTH), "--budget", "0.5").out.split()
    assert "width of 1 8 of 16 channels -0.2500" in " ".join(told)
    rows = csv.DictReader(StringIO(run("solve", *tables(WIDE, WORTH), "--budget", "0.5", "--csv").out))
    assert [row["widths"] for row in rows] == ["1=8", "1=8"]
    several = run("solve", *tables(WIDE, WORTH), "--budget", "1", "--count", 9, "--csv").out
    assert [row["widths"] for row in csv.DictReader(StringIO(several))] == ["1=16", "1=16", "1=8", "1=8", ""]


@pytest.mark.parametrize(
    ("arguments", "latencies"),
    [
        ([], [1.25, 1.5, 3.0]),
        (["--widths", "1.0,0.5"], [1.25, 1.5, 3.0]),
        (["--widths", "1.0"], [1.25, 3.0]),
        (["--method", "width"], [1.5, 3.0]),
        (["--method", "layermerge"], [1.25, 3.0]),
        (["--method", "depth"], [1.25, 3.0]),
        (["--method", "layer-only"], [3.0]),
    ],
)
def test_who_narrows(run: Any, tables: Any, arguments: list[str], latencies: list[float]) -> None:
    points = run("solve", *tables(WIDE, WORTH), *arguments, "--frontier", "--json").json["frontier"]
    assert [point["latency_ms"] for point in points] == latencies


def test_without_every_layer_shares_mean_nothing(run: Any, tables: Any) -> None:
    given = tables(without(LATENCY, "1,2"), without(IMPORTANCE, "1,2"))
    for budget in ([], ["--budget", "0.6"], ["--speedup", "2"]):
        refused(run("solve", *given, *budget), 2, "latency.csv lacks rows of single layers", "--original 22.3ms")
    assert run("solve", *given, "--budget", "3.5ms", "--json").json["latency_ms"] == 3.5
    assert run("solve", *given, "--original", "6ms", "--budget", "0.6", "--json").json["budget_ms"] == 3.6
    assert " of " not in run("solve", *given, "--budget", "3.5ms").out
    assert len(run("solve", *given, "--frontier", "--json").json["frontier"]) == 3


def test_a_budget_below_the_fastest_names_it(run: Any, tables: Any) -> None:
    refused(run("solve", *tables(), "--budget", "1ms", "--json"), 4, "the fastest takes 2 ms")


def test_a_plan_of_no_time_is_not_offered(run: Any, tables: Any) -> None:
    """What a table may hold: the whole chain at nothing."""
    done = run("solve", *tables(LATENCY.replace("0,3,7,0,2.0", "0,3,7,0,0")), "--frontier", "--json")
    assert [point["latency_ms"] for point in done.json["frontier"]] == [3.5, 4.5, 6.0]
    assert "left out: 1 plan that would take no time at all" in done.err
    header, *rows = LATENCY.splitlines()
    nothing = "\n".join([header, *(row.rpartition(",")[0] + ",0" for row in rows)])
    refused(run("solve", *tables(nothing), "--budget", "1ms"), 3, "every plan is predicted to take no time at all")


MALFORMED = {
    "cell": (LATENCY.replace("2.5", "nan"), IMPORTANCE, r"latency.csv: row 5 \(line 6\): latency_ms is 'nan'"),
    "negative": (LATENCY.replace("2.5", "-2.5"), IMPORTANCE, r"latency.csv: row 5 .*negative"),
    "twice": (LATENCY + "0,2,5,0,1.6\n", IMPORTANCE, r"latency.csv: row 7 .*the same as row 4"),
    "gap": (without(LATENCY, "0,"), without(IMPORTANCE, "0,"), r"latency.csv: row 1 .*first block"),
    "no importance": (LATENCY, without(IMPORTANCE, "1,3"), r"latency.csv: row 5 .*has no importance"),
    "infinite": (LATENCY, IMPORTANCE.replace("-0.5", "inf"), r"importance.csv: row 6 .*not a finite number"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_table_is_refused_by_row(run: Any, tables: Any, name: str) -> None:
    latency, importance, message = MALFORMED[name]
    refused(run("solve", *tables(latency, importance), "--json"), 3, message)


ARGUMENTS: dict[str, tuple[list[object], str]] = {
    "method": (["--method", "layermerg"], "did you mean 'layermerge'"),
    "both forms": (["model.py"], "--latency is for plain tables"),
    "both outputs": (["--json", "--csv"], "--json and --csv"),
    "two questions": (["--frontier", "--count", 2], "--frontier and --count"),
    "alpha": (["--alpha", 1], "--method depth"),
    "alpha nan": (["--method", "depth", "--alpha", "nan"], "alpha of nan"),
    "resolution": (["--resolution", 0], "resolution of 0"),
    "resolution nan": (["--resolution", "nan"], "resolution of nan"),
    "resolution huge": (["--resolution", "1e308"], r"resolution of 1e\+308"),
    "confidence": (["--confidence", 1], "confidence of 1"),
    "original": (["--original", "0.5"], "has no unit"),
    "plot": (["--plot", "frontier.pdf"], r"neither \.png nor \.svg"),
    "fastest": (["--fastest"], "--method depth"),
    "widths": (["--widths", "half"], "widths of 'half' cannot be"),
    "widths of depth": (["--method", "depth", "--widths", "0.5"], "that is of joint, width"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_cannot_be_served(run: Any, tables: Any, name: str) -> None:
    arguments, message = ARGUMENTS[name]
    refused(run("solve", *tables(), *arguments), 2, message)


def test_one_table_is_not_enough(run: Any, tables: Any) -> None:
    refused(run("solve"), 2, "solve needs MODEL, or --latency FILE and --importance FILE")
    refused(run("solve", *tables()[:2]), 2, "--latency needs --importance")
    refused(run("solve", *tables()[2:]), 2, "solve needs MODEL, or --latency")
    refused(run("solve", *tables()[:3], "no/such.csv"), 3, "no/such.csv: cannot read the table")


def test_torch_is_not_imported(tmp_path: Path) -> None:
    """A table of MobileNetV2's size, in a process of its own."""
    random.seed(0)
    blocks = [(start, end) for start in range(50) for end in range(start + 1, min(start + 9, 51))][:391]
    blocks += [(layer, layer + 1) for layer in range(50) if (layer, layer + 1) not in blocks]
    for name, column in (("latency", "latency_ms"), ("importance", "importance")):
        rows = [f"{start},{end},{random.random() * (end - start)}" for start, end in blocks]
        (tmp_path / f"{name}.csv").write_text("\n".join([f"start,end,{column}", *rows]))
    code = f"""
import sys
from trt_layermerge.cli.main import main
try:
    main(["solve", "--latency", {str(tmp_path / "latency.csv")!r}, "--importance", {str(tmp_path / "importance.csv")!r},
          "--json"])
finally:
    print([name for name in ("torch", "onnx", "onnxruntime", "matplotlib") if name in sys.modules], file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr.strip()) == (0, "[]")
    plan = json.loads(ran.stdout)
    assert plan["latency_ms"] <= plan["budget_ms"] and plan["blocks"][-1]["end"] == 50
