"""``profile --for-budget``: its options, and what it found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trt_layermerge as layermerge
from trt_layermerge.cli.options import PATH
from trt_layermerge.cli.sections import Decorator, option
from trt_layermerge.errors import IncompatibleError, UsageError
from trt_layermerge.estimation.device_files import device_names
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.planning.budget import Budget
from trt_layermerge.progress import Callback, minutes

if TYPE_CHECKING:
    from trt_layermerge.pipeline.budgeted_profiling import BudgetedProfile
    from trt_layermerge.pipeline.session import Session

budget_options: tuple[Decorator, ...] = (
    option(
        "--for-budget",
        metavar="BUDGET",
        help="Measure what the best plan for this budget rests on, and stop when no other row can change it.",
    ),
    option(
        "--importance",
        type=PATH,
        metavar="TABLE",
        usual="importance.jsonl in --output, with --task",
        help="Importance table that --for-budget plans with.",
    ),
    option(
        "--prior",
        metavar="CARD",
        usual="the rows measured so far",
        help=f"Card that --for-budget takes this device to be like: {', '.join(device_names())}, or a FILE.toml.",
    ),
)


@dataclass(frozen=True)
class BudgetOptions:
    """What the options say.

    Attributes:
        budget: The budget; ``None`` for all rows.
        importance: An importance table; ``None`` for the job's.
        prior: A card that the device is like; ``None`` for none.
    """

    budget: str | None
    importance: Path | None
    prior: str | None

    def require(self) -> None:
        """See that they fit together.

        Raises:
            UsageError: They do not.
        """
        if self.budget is not None:
            Budget.parse(self.budget)
        elif self.importance is not None or self.prior is not None:
            raise UsageError("--importance and --prior are for --for-budget", hint="pass --for-budget 0.6, too")

    def profile(self, session: Session, max_minutes: float | None, progress: Callback) -> BudgetedProfile:
        """Measure what the budget asks for.

        Raises:
            UsageError: There is no importance table.
            LayerMergeError: See ``profile_for_budget``.
        """
        table = self._table(session)
        return layermerge.profile_for_budget(
            session, table, prior=self.prior, max_minutes=max_minutes, progress=progress
        )

    def _table(self, session: Session) -> ImportanceTable:
        if self.importance is None and session.task is None:
            raise UsageError(
                "--for-budget plans, and there are no importances to plan with",
                hint="pass --importance FILE, or --task and --output of a job whose importance was measured",
            )
        if self.importance is None:
            from trt_layermerge.pipeline.measuring import importance_table  # torch has been loaded by now

            table = importance_table(session)
        else:
            table = ImportanceTable.read(self.importance)
            if table.weights != session.network.weights_hash:
                raise IncompatibleError(
                    f"{table.path} is of other weights than {session.job.model}",
                    hint="pass the same --weights that importance was measured with",
                )
        if not len(table):
            raise UsageError(f"{table.path} has no row", hint="run trt-layermerge importance --all first")
        return table


def budgeted_fields(found: BudgetedProfile) -> dict[str, Any]:
    """What was found, for JSON."""
    plan = found.plan
    return {
        "settled": found.settled,
        "wanted": found.wanted,
        "unmeasured": found.unmeasured,
        "bounded": found.bounded,
        "held": found.held,
        "saved_seconds": round(found.saved_seconds, 1),
        "plan": None
        if plan is None
        else {"latency_ms": plan.latency_ms, "objective": plan.objective, "choices": list(plan.keys)},
    }


def budgeted_lines(found: BudgetedProfile) -> Iterator[str]:
    """What was found, for people."""
    if not found.settled or found.plan is None:
        yield f"not settled: the time was up; {found.unmeasured} of {found.wanted} rows are not measured"
        return
    yield (
        f"settled: {found.plan.latency_ms:.4g} ms, {found.plan.speedup:.2f}x; {found.unmeasured} of {found.wanted} "
        f"rows are not measured, which saved about {minutes(found.saved_seconds)}"
    )
    if not found.unmeasured:
        yield "exact: every row is measured"
        return
    yield (
        "exact unless a row that is not measured is faster than its bound; "
        f"{found.held} of {found.bounded} rows that were measured after they had one were not"
    )
