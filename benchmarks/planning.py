"""How long the exact frontier takes beside the discretised recurrence for one budget: seeded random tables."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.problem import Item, Problem
from trt_layermerge.planning.reference import discretised

ROUNDS = 5


def instance(layers: int, span: int, kernels: int, seed: int = 0) -> Problem:
    """A chain whose blocks have up to ``span`` layers and ``kernels`` choices each; longer blocks lose more."""
    rng, items = np.random.default_rng(seed), []
    for start in range(layers):
        for end in range(start + 1, min(layers, start + span) + 1):
            for kernel in range(kernels):
                latency = int(rng.uniform(0.1, 1.0) * 1e6 * (1 + kernel))
                loss = 0.0 if end == start + 1 and kernel == 0 else float(rng.exponential(0.01) * (end - start))
                items.append(Item(0, start, end, f"{start}-{end} {kernel}", "merge", latency, -loss))
    original = sum(item.latency_ns for item in items if item.value == 0)
    return Problem((layers,), tuple(items), 0, original)


def seconds(action: Callable[[], object]) -> float:
    """Median time of an action."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def main() -> None:
    """Print one row for each instance."""
    print("seconds: the exact frontier of all budgets; one budget with bins of 0.1 ms, and of 0.01 ms")
    print(f"{'instance':<28}{'choices':>8}{'plans':>8}{'exact':>10}{'0.1 ms':>10}{'0.01 ms':>10}")
    shapes = {
        "MobileNetV2-like, 50 layers": (50, 8, 1),
        "ResNet-34-like, 32 layers": (32, 5, 1),
        "dense, 50 layers": (50, 50, 5),
    }
    for name, shape in shapes.items():
        problem = instance(*shape)
        frontier = solve(problem)
        budget = int(frontier.latency_ns[len(frontier) // 2])
        exact = seconds(lambda problem=problem: solve(problem))
        coarse = seconds(lambda problem=problem, budget=budget: discretised(problem, budget, 100_000))
        fine = seconds(lambda problem=problem, budget=budget: discretised(problem, budget, 10_000))
        row = f"{len(problem.items):>8}{len(frontier):>8}{exact:>10.4f}{coarse:>10.4f}{fine:>10.4f}"
        print(f"{name:<28}{row}")


if __name__ == "__main__":
    main()
