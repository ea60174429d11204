"""Plans that were found in a frontier, and what is printed of them: for people, as JSON, as CSV. Without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from trt_layermerge.planning.confidence import probability
from trt_layermerge.planning.frontier import Frontier
from trt_layermerge.planning.plan import Plan
from trt_layermerge.planning.views import frontier_view, plan_csv, plan_view


@dataclass(frozen=True)
class FoundPlans:
    """Plans that were found.

    Attributes:
        frontier: What they were found in.
        budget_ns: The budget in ns; ``None`` where none was asked for.
        plans: The plans, the best first; none where the frontier itself was asked for.
        original: Whether the latency of the original is known.
        more: Further fields of a plan's JSON.
    """

    frontier: Frontier
    budget_ns: int | None
    plans: tuple[Plan, ...]
    original: bool = True
    more: dict[str, Any] = field(default_factory=dict)

    def probability(self, plan: Plan) -> float | None:
        """Of meeting the budget; ``None`` where there is none, or no latency has an interval."""
        if self.budget_ns is None or all(item.low_ns is None for item in plan.items):
            return None
        return probability(plan, self.budget_ns)

    def plan_fields(self, plan: Plan) -> dict[str, Any]:
        """A plan, for JSON."""
        return plan_view(plan, self.budget_ns, self.probability(plan)) | self.more

    def frontier_fields(self) -> dict[str, Any]:
        """The whole frontier, with the plan that is marked in it, for JSON."""
        marked = self.plan_fields(self.plans[0]) if self.plans else {"method": self.frontier.problem.method}
        return marked | {"frontier": frontier_view(self.frontier)}

    def plan_csv(self, plan: Plan) -> str:
        """A plan as a table."""
        return plan_csv(plan, widths=bool(self.frontier.problem.groups))

    def plans_csv(self) -> str:
        """The plans as one table, numbered from 1."""
        tables = [self.plan_csv(plan).splitlines() for plan in self.plans]
        rows = (f"{number},{row}" for number, (_, *rows) in enumerate(tables, start=1) for row in rows)
        return "\n".join([f"plan,{tables[0][0]}", *rows]) + "\n"

    def plan_lines(self, plan: Plan) -> Iterator[str]:
        """A plan, for people."""
        for item in plan.items:
            yield f"{item.key:<32} {item.latency_ns / 1e6:8.4f} ms  {item.value:+.4f}"
        for width in plan.widths:
            if width.channels < width.full:
                yield f"width of {width.group:<23} {width.channels:8} of {width.full} channels  {width.value:+.4f}"
        of = f" of {plan.original_ns / 1e6:.3f} ms: {plan.speedup:.2f}x" if self.original else ""
        sure = self.probability(plan)
        meets = "" if sure is None else f"; meets the budget with probability {sure:.3f}"
        yield f"predicted {plan.latency_ms:.3f} ms{of}, objective {plan.objective:+.4f}{meets}"

    def frontier_lines(self) -> Iterator[str]:
        """The points of the frontier, for people."""
        for point in frontier_view(self.frontier):
            yield f"{point['latency_ms']:12.6f} ms  {point['objective']:+.6f}"
