"""``solve``: pick what to keep, merge and drop, from tables: those of the other stages, or plain CSV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import trt_layermerge as layermerge
from trt_layermerge.cli.config_file import config_option
from trt_layermerge.cli.options import (
    COUNT,
    PATH,
    csv_option,
    data_options,
    device_options,
    json_option,
    optional_network_options,
    plan_options,
    settings_of,
)
from trt_layermerge.cli.sections import OUTPUT, SectionedCommand, combined, option, section
from trt_layermerge.cli.show import print_json, print_text, screen
from trt_layermerge.cli.solution import Wanted, find, say_if_better, tell
from trt_layermerge.errors import UsageError
from trt_layermerge.pipeline.job import DEFAULT_BUDGET
from trt_layermerge.pipeline.settings import method_settings, read_budget
from trt_layermerge.planning.budget import Budget, BudgetUnit
from trt_layermerge.planning.finding import without_impossible
from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.methods.base import Method, TwoStage
from trt_layermerge.planning.methods.registry import method_named, registered_methods
from trt_layermerge.planning.tabulated import fastest_intervals, problem_from_tables
from trt_layermerge.planning.views import fastest_csv, fastest_view
from trt_layermerge.report.plans import FoundPlans

TABLE_OPTIONS = ("latency", "importance", "original", "resolution", "fastest")

table_options = section(
    "Tables of your own",
    option("--latency", type=PATH, metavar="FILE.csv", help="Plan with these latencies, in place of MODEL."),
    option("--importance", type=PATH, metavar="FILE.csv", help="Plan with these importances; with --latency."),
    option("--original", metavar="MS", help="Latency of the original, such as 22.3ms, if --latency lacks layers."),
    option(
        "--resolution",
        type=float,
        metavar="MS",
        help="Count latencies in steps of this, to save memory on huge tables.",
    ),
    option("--fastest", is_flag=True, help="Print stage one of a method that has two: --latency alone is needed."),
)
output_options = combined(
    section(
        "Plan",
        option("--frontier", is_flag=True, help="Print the best plan's figures for every budget."),
        option("--count", type=COUNT, default=1, show_default=True, metavar="K", help="Print the K best plans."),
    ),
    csv_option,
    section(
        OUTPUT,
        option(
            "--plot",
            type=PATH,
            metavar="FILE",
            help="Draw the frontier into FILE.png or FILE.svg.",
        ),
    ),
)


@click.command("solve", cls=SectionedCommand)
@combined(
    optional_network_options,
    device_options,
    data_options,
    plan_options,
    table_options,
    output_options,
    config_option,
    json_option,
)
def command(as_json: bool, as_csv: bool, frontier: bool, count: int, plot: Path | None, **given: Any) -> None:
    """Plan for a latency budget.

    For MODEL, from the profile and the importance table of the other stages; writes plan.json. For a network of
    anyone's, from two tables: --latency with the columns start,end,kernel,depthwise,latency_ms and --importance with
    start,end,kernel,depthwise,importance. For plans of width as well, the first has in_channels,out_channels, and the
    second rows of tensors,channels,importance besides: tensors such as 1|3|5, which narrow together.
    """
    wanted = Wanted(frontier, count, given["confidence"], plot, as_json, as_csv)
    method = method_named(given["method"], method_settings(given))
    tables = [f"--{name}" for name in TABLE_OPTIONS if given[name] not in (None, False)]
    if given["model"] is not None:
        if tables:
            raise UsageError(
                f"{tables[0]} is for plain tables, and MODEL has tables of its own", hint="pass one of them"
            )
        _of_model(wanted, given)
    elif given["latency"] is None:
        raise UsageError("solve needs MODEL, or --latency FILE and --importance FILE", hint="see solve --help")
    elif given["fastest"]:
        _fastest(method, given["latency"], as_json)
    else:
        _of_tables(wanted, _Tables.of(method, given), given)


@dataclass(frozen=True)
class _Tables:
    """Two tables, and how they are to be read."""

    method: Method
    latency: Path
    importance: Path
    original_ns: int | None
    resolution_ns: int | None

    @classmethod
    def of(cls, method: Method, given: dict[str, Any]) -> _Tables:
        """What the options say.

        Raises:
            UsageError: One is missing or out of range.
        """
        if given["importance"] is None:
            raise UsageError("--latency needs --importance FILE, too")
        original = given["original"]
        return cls(
            method,
            given["latency"],
            given["importance"],
            None if original is None else _original_ns(original),
            None if given["resolution"] is None else _resolution_ns(given["resolution"]),
        )


def _of_tables(wanted: Wanted, tables: _Tables, given: dict[str, Any]) -> None:
    budget = read_budget(given["budget"], given["speedup"])
    if budget is None and not wanted.whole:
        budget = DEFAULT_BUDGET
    problem = problem_from_tables(tables.method, tables.latency, tables.importance, original_ns=tables.original_ns)
    kept = {item.end for item in problem.items if item.kind == "keep"}
    known = tables.original_ns is not None or len(kept) == sum(problem.lengths)
    if budget is not None and budget.unit is not BudgetUnit.MILLISECONDS and not known:
        raise UsageError(
            f"a budget of {budget} refers to the original, and {tables.latency} lacks rows of single layers",
            hint="write the budget in ms, such as 22.3ms, or say what the original takes: --original 22.3ms",
        )
    frontier = without_impossible(solve(problem, tables.resolution_ns))
    budget_ns = None if budget is None else budget.nanoseconds(problem.original_ns)
    tell(FoundPlans(frontier, budget_ns, find(frontier, budget_ns, wanted), known), wanted)


def _of_model(wanted: Wanted, given: dict[str, Any]) -> None:
    session = layermerge.load(**settings_of({name: given[name] for name in given.keys() - set(TABLE_OPTIONS)}))
    with screen() as shown:
        if wanted.whole:
            found = layermerge.frontier(session, progress=shown)
        else:
            found = layermerge.solve(session, count=wanted.count, progress=shown)
    more: dict[str, Any] = {"original_ms": found.original_ns / 1e6}
    if wanted.whole:
        budget_ns = None if given["budget"] is None and given["speedup"] is None else found.budget_ns
        tell(FoundPlans(found.frontier, budget_ns, find(found.frontier, budget_ns, wanted), more=more), wanted)
        return
    say_if_better(found.best)
    more["plan"] = str(session.job.plan_file)
    tell(FoundPlans(found.frontier, found.budget_ns, found.plans, more=more), wanted)


def _fastest(method: Method, latency: Path, as_json: bool) -> None:
    if not isinstance(method, TwoStage):
        two_stages = [one.name for one in registered_methods() if isinstance(one, TwoStage)]
        raise UsageError(
            f"--fastest prints stage one, and method {method.name} has one stage only",
            hint=f"add --method {' or '.join(two_stages)}",
        )
    intervals = fastest_intervals(method, latency)
    if as_json:
        print_json({"method": method.name, "intervals": fastest_view(intervals)})
    else:
        print_text(fastest_csv(intervals))


def _original_ns(text: str) -> int:
    budget = Budget.parse(text)
    if budget.unit is not BudgetUnit.MILLISECONDS:
        raise UsageError(f"--original {text} has no unit", hint="write 22.3ms")
    return max(1, budget.nanoseconds(0))


def _resolution_ns(resolution: float) -> int:
    if not 1e-6 <= resolution <= 1e6:
        raise UsageError(f"a resolution of {resolution} ms cannot be", hint="write 0.01 for hundredths of a ms")
    return round(resolution * 1e6)
