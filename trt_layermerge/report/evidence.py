"""What a report shows beside the manifest: the tables that a plan rests on, as values that are drawn and not read back.

A job fills it from its own tables; a report of a manifest alone has none of it, and leaves out what it would show.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerRow:
    """A layer of the original.

    Attributes:
        chain: Number of its chain.
        index: Its number in that, from 1.
        name: As the network's own source calls it.
        operation: In words.
        latency_ns: Where it is kept as it is, in ns.
    """

    chain: int
    index: int
    name: str
    operation: str
    latency_ns: int


@dataclass(frozen=True)
class OperationRow:
    """A row of the latency table: a signature with its median and 95 % interval in ns, its status, and who uses it."""

    signature: str
    low_ns: int
    median_ns: int
    high_ns: int
    status: str
    planned: bool


@dataclass(frozen=True)
class ChoiceRow:
    """A choice whose latency and importance are both known.

    Attributes:
        key: Of the choice.
        kind: ``merge``, ``fit`` or ``identity``.
        saved_ns: How much less it takes than keeping its layers, in ns; negative where it takes more.
        loss: By how much the held-out loss rises with this change alone.
        planned: Whether it is part of the plan.
    """

    key: str
    kind: str
    saved_ns: int
    loss: float
    planned: bool


@dataclass(frozen=True)
class FrontierPoint:
    """A plan of the frontier: its predicted latency in ns and its objective."""

    latency_ns: int
    objective: float


@dataclass(frozen=True)
class BudgetRow:
    """The best plan for another budget: what it is predicted to take, how much it changes, what it is worth."""

    budget: str
    latency_ns: int
    speedup: float
    objective: float
    changed: int


@dataclass(frozen=True)
class Command:
    """A command, and what it is for."""

    line: str
    purpose: str


@dataclass(frozen=True)
class Evidence:
    """The tables of a job.

    Attributes:
        layers: Of the original, in order.
        operations: The latency table, the slowest first.
        choices: All that could have been done and is known.
        frontier: Its points, the fastest first; of very many an even selection.
        budgets: What other budgets give.
        commands: What makes and checks the delivery.
    """

    layers: tuple[LayerRow, ...] = ()
    operations: tuple[OperationRow, ...] = ()
    choices: tuple[ChoiceRow, ...] = ()
    frontier: tuple[FrontierPoint, ...] = ()
    budgets: tuple[BudgetRow, ...] = ()
    commands: tuple[Command, ...] = ()


NO_EVIDENCE = Evidence()
"""Of a report that is made from a manifest alone."""
