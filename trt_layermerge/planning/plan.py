"""A plan: one choice for every block of a tiling, with its predicted latency; and the file that carries it.

The file carries a certificate beside the plan: what was asked for, and the hashes of the tables that the prediction
rests on. Reading it checks that its parts agree with each other; that the tables are the same ones is for the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from trt_layermerge.errors import InputError, TableError, UsageError
from trt_layermerge.files import write_json
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.problem import Item, Problem, tiling_fault


@dataclass(frozen=True)
class Plan:
    """A tiling of all chains, with a choice for each block.

    Attributes:
        method: Name of the method that set the values.
        items: The chosen items, chain after chain, block after block.
        latency_ns: Predicted end-to-end latency in ns, with what lies outside of all blocks.
        objective: Sum of the items' values, from first to last.
        original_ns: Measured end-to-end latency of the original network, in ns.
    """

    method: str
    items: tuple[Item, ...]
    latency_ns: int
    objective: float
    original_ns: int

    @property
    def latency_ms(self) -> float:
        """Predicted end-to-end latency in ms."""
        return self.latency_ns / 1e6

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the choices, block after block; a block with breaks has one for each of its parts."""
        return tuple(key for item in self.items for key in item.parts or (item.key,))

    @property
    def fixed_ns(self) -> int:
        """Latency outside of all blocks in ns, possibly negative."""
        return self.latency_ns - sum(item.latency_ns for item in self.items)

    @property
    def speedup(self) -> float:
        """How many times as fast as the original it is predicted to be; infinite if its latency is not positive."""
        return self.original_ns / self.latency_ns if self.latency_ns > 0 else float("inf")


@dataclass(frozen=True)
class Refined:
    """A plan that was executed and measured, to decide by measurement between plans that are predicted alike.

    Attributes:
        rank: Its place by objective, from 1.
        measured_rank: Its place by measurement, from 1: plans that keep the budget first, by loss, others by latency.
        predicted_ns: Latency that the plan predicts, in ns.
        measured_ns: Measured end-to-end latency of its engine, in ns.
        original_ns: The same of the original network, measured interleaved with it.
        objective: Sum of its items' values.
        loss: Held-out loss after fitting, before any training.
        chosen: Whether it is the one that was decided for.
    """

    rank: int
    measured_rank: int
    predicted_ns: int
    measured_ns: int
    original_ns: int
    objective: float
    loss: float
    chosen: bool


@dataclass(frozen=True)
class Certificate:
    """What a plan was made for and from.

    Attributes:
        budget: The budget as it was asked for.
        budget_ns: The same in ns, for the plan's original.
        tables: SHA-256 of each table the plan rests on, in hexadecimal, by a name such as ``profile``.
        refined: The plans that were measured to decide for this one, by objective; none where predictions decided.
            What was measured then goes before what is predicted, which may exceed the budget.
    """

    budget: Budget
    budget_ns: int
    tables: Mapping[str, str]
    refined: tuple[Refined, ...] = ()


@dataclass(frozen=True)
class PlanFile:
    """A plan with its certificate: what a plan file holds."""

    plan: Plan
    certificate: Certificate

    @classmethod
    def of(cls, plan: Plan, budget: Budget, tables: Mapping[str, str], refined: Iterable[Refined] = ()) -> PlanFile:
        """Certify a plan with the budget it was made for and the hashes of the tables it was made from."""
        return cls(plan, Certificate(budget, budget.nanoseconds(plan.original_ns), dict(tables), tuple(refined)))


def write_plan(path: Path, file: PlanFile) -> None:
    """Write a plan file; after a kill it is whole or as it was before.

    Raises:
        InputError: The plan and its certificate do not agree, so that nobody could read the file.
    """
    document = _Document(
        format="trt-layermerge plan",
        version=1,
        method=file.plan.method,
        budget=str(file.certificate.budget),
        budget_ns=file.certificate.budget_ns,
        latency_ns=file.plan.latency_ns,
        original_ns=file.plan.original_ns,
        fixed_ns=file.plan.fixed_ns,
        objective=file.plan.objective,
        tables=dict(file.certificate.tables),
        refined=file.certificate.refined,
        items=file.plan.items,
    )
    _file_of(document)
    fields = document.model_dump(exclude={"items"} if document.refined else {"items", "refined"})
    write_json(path, fields | {"items": [_record(item) for item in document.items]})


def read_plan(path: Path) -> PlanFile:
    """Read a plan file.

    Raises:
        TableError: It is not there, is no plan file, or its fields contradict each other; the message names the field.
    """
    try:
        return _file_of(_Document.model_validate_json(path.read_bytes()))
    except OSError as error:
        raise TableError(f"{path}: cannot read the plan: {error.strerror}") from error
    except ValidationError as error:
        raise TableError(
            f"{path}: {_first_fault(error)}", hint="write the plan again with trt-layermerge solve"
        ) from error
    except InputError as error:
        raise TableError(f"{path}: {error.message}", hint="a plan is not to be edited by hand") from error


class _Document(BaseModel):
    """The JSON of a plan file, version 1."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["trt-layermerge plan"]
    version: Literal[1]
    method: str
    budget: str
    budget_ns: int
    latency_ns: int
    original_ns: PositiveInt
    fixed_ns: int
    objective: float
    tables: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    refined: tuple[Refined, ...] = ()
    items: tuple[Item, ...]


def _record(item: Item) -> dict[str, Any]:
    """An item as JSON has it, without what is not known of it."""
    return {name: value for name, value in asdict(item).items() if value not in (None, ())}


def _file_of(document: _Document) -> PlanFile:
    """The plan file of a document whose fields agree.

    Raises:
        InputError: They do not; the message begins with the name of the field.
    """
    items = document.items
    plan = Plan(document.method, items, document.latency_ns, document.objective, document.original_ns)
    try:
        _check_items(plan)
    except InputError as error:
        raise InputError(f"field items: {error.message}") from error
    try:
        file = PlanFile.of(plan, Budget.parse(document.budget), document.tables, document.refined)
    except UsageError as error:
        raise InputError(f"field budget: {error.message}") from error
    if file.certificate.budget_ns != document.budget_ns:
        raise InputError(f"field budget_ns: {document.budget} of the original is {file.certificate.budget_ns} ns")
    if document.fixed_ns != plan.fixed_ns:
        raise InputError(f"field latency_ns: items and fixed_ns add up to {_latency(document)} ns")
    if (fault := _refined_fault(document)) is not None:
        raise InputError(f"field refined: {fault}")
    if plan.latency_ns > document.budget_ns and not document.refined:
        raise InputError(f"field latency_ns: {plan.latency_ns} ns is more than the budget of {document.budget_ns} ns")
    if plan.objective != _objective(items):
        raise InputError("field objective: it is not the sum of the items' values")
    return file


def _refined_fault(document: _Document) -> str | None:
    """Why plans that were measured do not fit the plan that was decided for, in words; None where they do."""
    chosen = [one for one in document.refined if one.chosen]
    if not document.refined:
        return None
    if len(chosen) != 1:
        return f"{len(chosen)} plans are the chosen one"
    if (chosen[0].predicted_ns, chosen[0].objective) != (document.latency_ns, document.objective):
        return "the chosen one is not this plan"
    return None


def _check_items(plan: Plan) -> None:
    if (fault := tiling_fault(plan.items)) is not None:
        raise InputError(fault)
    ends = {item.last_chain: item.end for item in plan.items}
    lengths = tuple(ends.get(chain, 1) for chain in range(max(ends, default=-1) + 1))  # of chains within regions, any
    Problem(lengths, plan.items, plan.fixed_ns, plan.original_ns)  # which checks every item


def _objective(items: tuple[Item, ...]) -> float:
    total = 0.0
    for item in items:  # one after the other, as the solver adds: sum() rounds differently from Python 3.12 on
        total += item.value
    return total


def _latency(document: _Document) -> int:
    return document.fixed_ns + sum(item.latency_ns for item in document.items)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    if not fault["loc"]:
        return f"not a plan file: {fault['msg']}"
    names = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in fault["loc"])
    return f"field {names.removeprefix('.')}: {fault['msg']}"
