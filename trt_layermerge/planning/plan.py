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
from trt_layermerge.files import parse_json, read_bytes, write_json
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.problem import Item, Problem, tiling_fault
from trt_layermerge.planning.widths import PlannedWidth, WidthGroup, WidthOption


@dataclass(frozen=True)
class Plan:
    """A tiling of all chains, with a choice for each block.

    Attributes:
        method: Name of the method that set the values.
        items: The chosen items, chain after chain, block after block.
        latency_ns: Predicted end-to-end latency in ns, with what lies outside of all blocks.
        objective: Sum of the values of items and widths, block after block.
        original_ns: Measured end-to-end latency of the original network, in ns.
        widths: The width of each channel group that has a tensor left; none where nothing could be narrowed.
    """

    method: str
    items: tuple[Item, ...]
    latency_ns: int
    objective: float
    original_ns: int
    widths: tuple[PlannedWidth, ...] = ()

    @classmethod
    def of(cls, problem: Problem, items: Iterable[Item]) -> Plan:
        """The plan of a problem that has these items, in order."""
        items = tuple(items)
        widths = _planned(problem.groups, items)
        latency_ns = problem.fixed_ns + _added_ns(items, widths)
        return cls(problem.method, items, latency_ns, _objective(items, widths), problem.original_ns, widths)

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
        """Latency outside of all blocks in ns, possibly negative; without what widths add to it."""
        return self.latency_ns - _added_ns(self.items, self.widths)

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
        objective: Sum of the values of its items and widths.
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
    document = PlanDocument(
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
        widths=file.plan.widths,
        items=file.plan.items,
    )
    _file_of(document)
    absent = {name for name in ("refined", "widths") if not getattr(document, name)}  # as before there were any
    fields = document.model_dump(exclude={"items", *absent})
    write_json(path, fields | {"items": [_record(item) for item in document.items]})


def read_plan(path: Path) -> PlanFile:
    """Read a plan file.

    Raises:
        TableError: It is not there, is no plan file, or its fields contradict each other; the message names the field.
    """
    try:
        return read_plan_bytes(path, read_bytes(path))
    except OSError as error:
        raise TableError(f"{path}: cannot read the plan: {error.strerror}") from error
    except ValueError as error:
        raise TableError(f"{path} {error}", hint="a plan is not to be edited by hand") from error


def read_plan_bytes(where: object, data: bytes) -> PlanFile:
    """Read what a plan file holds, wherever it is.

    Args:
        where: What holds it, for messages.
        data: The bytes.

    Raises:
        TableError: It is no plan, or its fields contradict each other; the message names the field.
    """
    try:
        document = PlanDocument.model_validate_json(data)
        parse_json(data)  # which bounds what the document leaves open
        return _file_of(document)
    except ValidationError as error:
        hint = "write the plan again with trt-layermerge solve"
        raise TableError(f"{where}: {_first_fault(error)}", hint=hint) from error
    except InputError as error:
        raise TableError(f"{where}: {error.message}", hint="a plan is not to be edited by hand") from error
    except ValueError as error:
        raise TableError(f"{where} {error}", hint="a plan is not to be edited by hand") from error


class PlanDocument(BaseModel):
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
    widths: tuple[PlannedWidth, ...] = ()
    items: tuple[Item, ...]


def _record(item: Item) -> dict[str, Any]:
    """An item as JSON has it, without what is not known of it."""
    return {name: value for name, value in asdict(item).items() if value not in (None, ())}


def _file_of(document: PlanDocument) -> PlanFile:
    """The plan file of a document whose fields agree.

    Raises:
        InputError: They do not; the message begins with the name of the field.
    """
    items, widths = document.items, document.widths
    plan = Plan(document.method, items, document.latency_ns, document.objective, document.original_ns, widths)
    try:
        _check_items(plan)
    except InputError as error:
        raise InputError(f"field items: {error.message}") from error
    named = [one.group for one in _planned(_groups(plan), items)]
    if named != [one.group for one in widths]:
        raise InputError(f"field widths: the items name the groups {named}, in this order")
    try:
        file = PlanFile.of(plan, Budget.parse(document.budget), document.tables, document.refined)
    except UsageError as error:
        raise InputError(f"field budget: {error.message}") from error
    if file.certificate.budget_ns != document.budget_ns:
        raise InputError(f"field budget_ns: {document.budget} of the original is {file.certificate.budget_ns} ns")
    if document.fixed_ns != plan.fixed_ns:
        added = document.fixed_ns + _added_ns(items, widths)
        raise InputError(f"field latency_ns: what is planned and fixed_ns add up to {added} ns")
    if (fault := _refined_fault(document)) is not None:
        raise InputError(f"field refined: {fault}")
    if plan.latency_ns > document.budget_ns and not document.refined:
        raise InputError(f"field latency_ns: {plan.latency_ns} ns is more than the budget of {document.budget_ns} ns")
    if plan.objective != _objective(items, widths):
        raise InputError("field objective: it is not the sum of the items' and the widths' values")
    return file


def _refined_fault(document: PlanDocument) -> str | None:
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
    Problem(lengths, plan.items, plan.fixed_ns, plan.original_ns, groups=_groups(plan))  # which checks every item


def _groups(plan: Plan) -> tuple[WidthGroup, ...]:
    """The groups of a plan, of which only the planned widths are left."""
    return tuple(WidthGroup(one.group, (WidthOption(one.channels, one.value, one.latency_ns),)) for one in plan.widths)


def _planned(groups: Iterable[WidthGroup], items: Iterable[Item]) -> tuple[PlannedWidth, ...]:
    """The widths that items which agree with each other settle, in the order in which they name the groups first.

    Args:
        groups: All groups that the items name, and maybe more.
        items: The items of a plan, in order.
    """
    known = {
        (group.key, option.channels): PlannedWidth(
            group.key, option.channels, group.full, option.value, option.latency_ns
        )
        for group in groups
        for option in group.options
    }
    settled = {key: channels for item in items for key, channels in item.widths}
    return tuple(known[named] for named in settled.items())


def _objective(items: Iterable[Item], widths: Iterable[PlannedWidth]) -> float:
    """Sum of the values of a plan's items and widths: block after block, and with each what it names first.

    Floats are added in the very order in which the solver adds them; ``sum`` rounds differently from Python 3.12 on.
    """
    worth = {width.group: width.value for width in widths}
    total = 0.0
    for item in items:
        gain = item.value
        for key, _ in item.widths:
            gain += worth.pop(key, 0.0)
        total += gain
    return total


def _added_ns(items: Iterable[Item], widths: Iterable[PlannedWidth]) -> int:
    return sum(item.latency_ns for item in items) + sum(width.latency_ns for width in widths)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    if not fault["loc"]:
        return f"not a plan file: {fault['msg']}"
    names = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in fault["loc"])
    return f"field {names.removeprefix('.')}: {fault['msg']}"
