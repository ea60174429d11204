"""What every planning method must answer, so that nobody has to ask one for its name.

A method is a frozen dataclass. Its fields are its settings, each with a default: the options of the command line are
made from them, and ``Method`` validates what all settings have in common.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, Protocol, TypeVar, cast

from trt_layermerge.errors import UsageError
from trt_layermerge.planning.candidate import Candidate, MeasuredGroup
from trt_layermerge.planning.intervals import Interval, Span
from trt_layermerge.planning.problem import Problem
from trt_layermerge.planning.widths import WidthGroup

_T = TypeVar("_T", int, float, str)


class ChoiceTraits(Protocol):
    """What a method may ask of a choice before anything is measured; ``Candidate`` has it, and so have choices."""

    @property
    def kind(self) -> str:
        """``keep``, ``merge``, ``fit`` or ``identity``."""

    @property
    def layers(self) -> int:
        """Number of layers of its block."""

    @property
    def dropped(self) -> int | None:
        """How many convolutions a ``merge`` drops; None where that is not known, of regions, and for other kinds."""

    @property
    def reducible(self) -> bool:
        """Whether each layer of the block could be dropped by itself without a change of shape."""


@dataclass(frozen=True)
class MethodSetting:
    """A setting of a method.

    Attributes:
        name: The field of the method; with dashes, the option.
        default: What it is where nobody says anything; its type is the setting's.
        help: What it does, in a sentence.
        usual: The default in words, where it says more than the value.
    """

    name: str
    default: int | float | str
    help: str
    usual: str | None = None


def method_setting(default: _T, help: str, usual: str | None = None) -> _T:
    """A field of a method that is a setting."""
    return field(default=default, metadata={"help": help, "usual": usual})


@dataclass(frozen=True)
class Method(ABC):
    """A way to plan: which choices it takes, what they are worth to it, and what follows for the rest of a job.

    Raises:
        UsageError: A setting is no finite number.
    """

    def __post_init__(self) -> None:
        """Check the settings; a method whose settings have narrower ranges adds its own checks."""
        for one in self.settings:
            value = getattr(self, one.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"method {self.name}: {one.name} of {value} cannot be", hint="write a finite number")

    @property
    @abstractmethod
    def name(self) -> str:
        """What the command line and plans call it; the same as in the registry."""

    @property
    @abstractmethod
    def fits(self) -> bool:
        """Whether it admits any ``fit``.

        If it does, plans are executed with everything that closed-form fits make use of, cannot be decoupled, and of a
        ``merge`` and a ``fit`` of the same convolution the method is given the fit: the latency is the same, and the
        product of the weights is one of the points that the fit is the best of.
        """

    @property
    @abstractmethod
    def adds_activations(self) -> bool:
        """Whether it knows what to do with a block that is there twice, with an activation behind it and without."""

    @abstractmethod
    def admits(self, choice: ChoiceTraits) -> bool:
        """Whether it takes such a choice; a ``keep`` always."""

    @property
    def shares(self) -> tuple[Fraction, ...] | None:
        """Shares of its channels that a group may keep, 0 for what is none; ``None`` for all widths there are.

        Here there are none: every group stays as it is.
        """
        return ()

    @property
    def narrows(self) -> bool:
        """Whether it plans widths."""
        return self.shares != ()

    @property
    def narrows_unasked(self) -> bool:
        """Whether a job measures widths for it although nobody named any."""
        return False

    def value(self, candidate: Candidate) -> float:
        """What a candidate is worth by its losses; larger is better. Here, the change of the loss."""
        return candidate.gain

    def importance(self, candidate: Candidate) -> float:
        """What a candidate is worth: what a table says itself, or ``value``."""
        return self.value(candidate) if candidate.importance is None else candidate.importance

    def problem(
        self,
        lengths: Sequence[int],
        candidates: Iterable[Candidate],
        fixed_ns: int,
        original_ns: int,
        groups: Sequence[MeasuredGroup] = (),
    ) -> Problem:
        """The problem as this method sees it: the admitted candidates and what they are worth.

        Args:
            lengths: Number of layers of each chain.
            candidates: All measured choices.
            fixed_ns: Latency outside of all blocks in ns, possibly negative.
            original_ns: Measured latency of the original network in ns.
            groups: All channel groups that candidates name.

        Raises:
            InputError: The candidates make no problem: one is out of range or not finite, or a chain cannot be tiled.
        """
        admitted = (one for one in candidates if self.admits(one))
        offered = self.offered(groups)
        items = tuple(one.item(self.importance(one)) for one in at_widths(admitted, groups, offered))
        return Problem(tuple(lengths), items, fixed_ns, original_ns, self.name, offered)

    def offered(self, groups: Sequence[MeasuredGroup]) -> tuple[WidthGroup, ...]:
        """The groups that may be narrowed, with their widths and what these are worth to it. Here, none."""
        return ()

    @property
    def settings(self) -> tuple[MethodSetting, ...]:
        """Its settings: the fields that ``method_setting`` made."""
        own = (one for one in fields(self) if "help" in one.metadata)
        return tuple(MethodSetting(one.name, cast(Any, one.default), **one.metadata) for one in own)

    @property
    def changed(self) -> dict[str, int | float | str]:
        """The settings that are not the default ones, by name."""
        return {one.name: value for one in self.settings if (value := getattr(self, one.name)) != one.default}


def at_widths(
    candidates: Iterable[Candidate], groups: Sequence[MeasuredGroup], offered: Iterable[WidthGroup] = ()
) -> Iterator[Candidate]:
    """The candidates of widths that are on offer; where a group is not on offer, of all its channels and without it."""
    full = {group.key: {group.full} for group in groups}
    choice = {group.key: {option.channels for option in group.options} for group in offered}
    allowed = full | choice
    for one in candidates:
        # A group that is nobody's is left in, for the problem to refuse it.
        if all(channels in allowed.get(key, (channels,)) for key, channels in one.widths):
            kept = tuple(named for named in one.widths if named[0] in choice or named[0] not in full)
            yield one if kept == one.widths else replace(one, widths=kept)


class TwoStage(Method):
    """A method that first finds the fastest way through each interval of layers, and then which intervals to take.

    It knows one merge of a block. Importances may say of the block's two boundaries whether an activation was there:
    the CSV columns ``start_activation`` and ``end_activation``.
    """

    @abstractmethod
    def stage_one(self, length: int, latencies: Mapping[Span, int]) -> dict[Span, Interval]:
        """The fastest arrangement of each interval that can be run at all, by start and end.

        Args:
            length: Number of layers of the chain.
            latencies: Latency in ns of each block that can be merged, single layers included.
        """
