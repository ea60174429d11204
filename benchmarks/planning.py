"""The exact frontier of all budgets beside the discretised recurrence for one budget, on seeded random tables.

Each figure is of a process of its own, so that peak memory is its own too; what is said of one row are ratios within
one run. "Over budget" says by how much plans exceed their budget: those of bins rounded down, as in the published
program of LayerMerge, and those of every solver here, which must be none.

    python benchmarks/planning.py [--quick | --only NAME]
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from shapes import SHAPES, write_tables

from trt_layermerge.planning.frontier import Labels, solve
from trt_layermerge.planning.problem import Item, Problem
from trt_layermerge.planning.reference import discretised

ROUNDS = 5  # of which the median counts; one for what takes longer than a second
BUDGETS = (0.5, 0.6, 0.7, 0.8, 0.9)  # shares of the original
WIDTHS = {"depth": (1.0,), "widths": (1.0, 0.75, 0.5, 0.25), "8 widths": tuple(i / 8 for i in range(8, 0, -1))}
COARSE, FINE = 100_000, 10_000  # bins of 0.1 ms and of 0.01 ms


def chain(layers: int, span: int, kernels: int, choices: int | None = None, seed: int = 0) -> Problem:
    """A chain whose blocks have up to ``span`` layers and, from two layers on, ``kernels`` choices each.

    A merged block takes 0.3 to 1.2 times as long as its layers, and its loss grows faster than its length.

    Args:
        layers: Number of layers.
        span: Layers of the longest block.
        kernels: Choices of a block of several layers.
        choices: How many choices to leave in, picked at random beside those that keep a layer; None for all.
        seed: Of the random numbers.
    """
    random = np.random.default_rng(seed)
    until = np.concatenate([[0.0], np.cumsum(random.uniform(0.1, 1.0, layers))])
    keeps, merges = [], []
    for start in range(layers):
        for end in range(start + 1, min(layers, start + span) + 1):
            for kernel in range(kernels if end > start + 1 else 1):
                single, layerwise = end == start + 1, float(until[end] - until[start])
                latency = layerwise if single else layerwise * random.uniform(0.3, 1.2)
                loss = 0.0 if single else float(random.exponential(0.01)) * (end - start) ** 1.5
                item = Item(0, start, end, f"{start}-{end} {kernel}", "merge", math.ceil(latency * 1e6), -loss)
                (keeps if single else merges).append(item)
    if choices is not None:
        merges = [merges[i] for i in sorted(random.permutation(len(merges))[: choices - layers])]
    return Problem((layers,), (*keeps, *merges), 0, sum(item.latency_ns for item in keeps))


def correlated(layers: int, span: int, kernels: int, seed: int = 0) -> Problem:
    """Like ``chain``, but the loss of a choice follows from what it saves, within 5 %: each has its budget.

    The frontiers of such tables are the largest, and bounds have least to say about them.
    """
    random = np.random.default_rng(seed)
    problem = chain(layers, span, kernels, seed=seed)
    kept = {item.end: item.latency_ns for item in problem.items if item.value == 0}

    def losing(item: Item) -> Item:
        saved = max(0, sum(kept[layer] for layer in range(item.start + 1, item.end + 1)) - item.latency_ns) / 1e6
        return replace(item, value=-(saved**1.1) * (1 + 0.05 * float(random.standard_normal())) * 0.01)

    return replace(problem, items=tuple(losing(item) if item.value else item for item in problem.items))


def nested(stages: int, modules: int, kernels: int, seed: int = 0) -> Problem:
    """Stages of modules of branches, regions nested three deep, as in the networks with the most of them.

    A module is four chains of 2, 1, 3 and 1 layers, the first two of them a region of their own; modules in a row are
    regions, too, up to a whole stage. A region takes 0.2 to 1 times as long as its layers, less what else is in it.

    Args:
        stages: How many of them.
        modules: In each stage.
        kernels: Choices of a block of several layers, and of a region.
        seed: Of the random numbers.
    """
    random, lengths = np.random.default_rng(seed), (2, 1, 3, 1) * (stages * modules)
    keep = [[float(random.uniform(0.05, 0.5)) for _ in range(length)] for length in lengths]
    taken = [(chain, start, chain, end) for chain, length in enumerate(lengths) for start in range(length)
             for end in range(start + 1, length + 1)]  # fmt: skip
    regions = [(module, 0, module + 1, 1) for module in range(0, len(lengths), 4)]
    for stage in range(0, len(lengths), 4 * modules):
        runs = ((first, last) for first in range(modules) for last in range(first, modules))
        regions += [(stage + 4 * first, 0, stage + 4 * last + 3, 1) for first, last in runs]
    items = []
    for number, (chain, start, end_chain, end) in enumerate([*taken, *regions]):
        among = range(chain, end_chain + 1)
        inside = keep[chain][start:end] if len(among) == 1 else [ms for one in among for ms in keep[one]]
        single, region = len(inside) == 1, number >= len(taken)
        for kernel in range(1 if single else kernels):
            latency = sum(inside) * (1.0 if single else random.uniform(0.2, 1.0)) - (0.1 if region else 0.0)
            loss = 0.0 if single else float(random.exponential(0.01)) * len(inside) ** 1.5
            key, last = f"{number} {kernel}", end_chain if region else None
            kind = "fit" if region else "keep" if single else "merge"
            items.append(Item(chain, start, end, key, kind, math.ceil(latency * 1e6), -loss, end_chain=last))
    return Problem(lengths, tuple(items), 0, math.ceil(sum(map(sum, keep)) * 1e6))


def narrowed(name: str, shares: tuple[float, ...]) -> Problem:
    return SHAPES[name]().problem(shares)


INSTANCES: dict[str, Callable[[], Problem]] = {
    "MobileNetV2 shape": lambda: chain(50, 8, 2, choices=391),
    "ResNet-34 shape": lambda: chain(32, 5, 1),
    "dense, 50 layers": lambda: chain(50, 50, 5),
    "dense, 100 layers": lambda: chain(100, 100, 5),
    "dense, 200 layers": lambda: chain(200, 200, 5),
    "dense, 400 layers": lambda: chain(400, 400, 5),
    "local, 200 layers": lambda: chain(200, 8, 5),
    "local, 400 layers": lambda: chain(400, 8, 5),
    "nested, 210 layers": lambda: nested(3, 10, 4),
    "nested, 420 layers": lambda: nested(3, 20, 4),
    "correlated, 50": lambda: correlated(50, 50, 5),
    "correlated, 100": lambda: correlated(100, 8, 5),
}
SMALL = tuple(INSTANCES)[:3]  # where the reference, in plain Python, comes to an end
NARROWED = tuple(f"{name}, {note}" for name in SHAPES for note in WIDTHS)
for _name, (_note, _shares) in product(SHAPES, WIDTHS.items()):
    INSTANCES[f"{_name}, {_note}"] = partial(narrowed, _name, _shares)


def budgets(problem: Problem) -> list[int]:
    return [int(share * problem.original_ns) for share in BUDGETS]


def rounded_down(problem: Problem, bin_ns: int) -> Problem:
    return replace(problem, items=tuple(replace(i, latency_ns=i.latency_ns // bin_ns * bin_ns) for i in problem.items))


def worst(pairs: Iterable[tuple[int, int]]) -> float:
    """Largest share by which latencies exceed their budgets; 0 where none does."""
    return max((max(0.0, latency / budget - 1) for latency, budget in pairs), default=0.0)


def exact(problem: Problem, resolution_ns: int | None) -> dict[str, Any]:
    frontier = solve(problem, resolution_ns)
    met = [budget for budget in budgets(problem) if budget >= frontier.fastest.latency_ns]
    every = [(frontier.best(budget).latency_ns, budget) for budget in met]
    counts = {"plans": len(frontier), "nodes": len(frontier.labels), "labels": sum(map(_size, frontier.labels))}
    return counts | {"over": worst(every), "error_ms": frontier.error_ns / 1e6}


def _size(labels: Labels) -> int:
    return len(labels.value)


def ten_best(problem: Problem) -> dict[str, Any]:
    frontier = solve(problem)
    met = [budget for budget in budgets(problem) if budget >= frontier.fastest.latency_ns]
    began = time.perf_counter()
    found = [(plan.latency_ns, budget) for budget in met for plan in frontier.best_plans(budget, 10)]
    return {"seconds": (time.perf_counter() - began) / len(met), "over": worst(found)}


def binned(problem: Problem, bin_ns: int) -> dict[str, Any]:
    """The recurrence for one budget, with latencies rounded up; and, of all budgets, what rounding down leads to."""
    budget = budgets(problem)[1]
    began = time.perf_counter()
    plan = discretised(problem, budget, bin_ns)
    seconds = time.perf_counter() - began
    true = {item.key: item.latency_ns for item in problem.items}
    asked = budgets(problem) if seconds < 1 else []
    low = [(discretised(rounded_down(problem, bin_ns), budget, bin_ns), budget) for budget in asked]
    down = [(sum(true[item.key] for item in plan.items), b) for plan, b in low if plan is not None]
    over = worst([] if plan is None else [(plan.latency_ns, budget)])
    return {"seconds": seconds, "over": over, "down": worst(down) if down else None}


TASKS: dict[str, Callable[[Problem], dict[str, Any]]] = {
    "exact": lambda problem: exact(problem, None),
    "10 us": lambda problem: exact(problem, 10_000),
    "ten best": ten_best,
    "0.1 ms": lambda problem: binned(problem, COARSE),
    "0.01 ms": lambda problem: binned(problem, FINE),
}


def child(name: str, task: str) -> None:
    """Do one task and print what it took as JSON."""
    problem, times, result = INSTANCES[name](), list[float](), dict[str, Any]()
    before = peak_mb()
    while len(times) < ROUNDS and sum(times) < 1.0:
        began = time.perf_counter()
        result = TASKS[task](problem)
        times.append(result.get("seconds", time.perf_counter() - began))
    result |= {"seconds": float(np.median(times)), "peak_mb": peak_mb(), "before_mb": before}
    print(json.dumps(result | {"choices": len(problem.items)}))


def process() -> None:
    """Print what ``solve`` takes as a process, for plain tables of MobileNetV2 with four widths a group."""
    with TemporaryDirectory() as folder:
        latency, importance = write_tables(SHAPES["MobileNetV2"](), Path(folder))
        tables = ["--latency", str(latency), "--importance", str(importance)]
        for arguments in (["--version"], ["solve", *tables, "--budget", "0.5"]):
            times = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                command = [sys.executable, "-m", "trt_layermerge.cli.main", *arguments]
                subprocess.run(command, check=True, capture_output=True)
                times.append(time.perf_counter() - began)
            print(f"process: {arguments[0]:<10}{np.median(times):>9.4f} s")


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


def measured(name: str, task: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--task", name, task]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}" if share else "none"


def report(names: Iterable[str]) -> None:
    """Print one row for each instance and task; ratios are to the exact frontier of the same instance."""
    print(
        f"{'instance':<20}{'choices':>8}  {'task':<9}{'seconds':>9}{'ratio':>8}{'peak MB':>9}{'over budget':>13}  notes"
    )
    for name in names:
        base = 0.0
        for task in TASKS if name in SMALL else ("exact", "10 us", "ten best"):
            row = measured(name, task)
            base = base or row["seconds"]
            notes = {
                "exact": f"{row.get('plans')} plans; {row.get('nodes')} nodes, {row.get('labels')} labels; all budgets",
                "10 us": f"{row.get('plans')} plans; error at most {row.get('error_ms', 0):.3f} ms",
                "ten best": "one budget, after the frontier",
            }.get(task, f"one budget; rounded down: {percent(row.get('down'))} over")
            print(
                f"{name:<20}{row['choices']:>8}  {task:<9}{row['seconds']:>9.4f}{row['seconds'] / base:>8.1f}"
                f"{row['peak_mb']:>9.0f}{percent(row['over']):>13}  {notes}",
                flush=True,
            )


def main() -> None:
    """The whole table, with ``--quick`` the shapes of the papers' networks, or those whose names have a part."""
    if sys.argv[1:2] == ["--task"]:
        child(*sys.argv[2:4])
    elif sys.argv[1:2] == ["--only"]:
        report(name for name in INSTANCES if sys.argv[2] in name)
    else:
        report((*SMALL, *NARROWED) if "--quick" in sys.argv else INSTANCES)
        process()


if __name__ == "__main__":
    main()
