"""What every planning method must pass: inherit ``MethodConformance`` and give it a method. It needs pytest."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product

import pytest

from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.cli.commands import compress
from trt_layermerge.cli.commands import solve as solving
from trt_layermerge.errors import InfeasibleBudgetError, UsageError
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.pipeline.session import for_method
from trt_layermerge.pipeline.settings import method_setting_names
from trt_layermerge.planning.candidate import Candidate, MeasuredGroup, MeasuredWidth
from trt_layermerge.planning.frontier import Frontier, solve
from trt_layermerge.planning.methods.base import Method, TwoStage
from trt_layermerge.planning.methods.registry import registered_methods
from trt_layermerge.planning.problem import Problem, tiling_fault

KEEP = Candidate(0, 0, 1, "keep", "keep", 10, reducible=False, loss_before=0.0, loss_after=0.0)
SEEDS = range(25)


@dataclass(frozen=True)
class Instance:
    """Chains that are small enough to look at every plan, with measured choices of every kind.

    Attributes:
        lengths: Number of layers of each chain.
        candidates: A ``keep`` of every layer, and some other choices.
    """

    lengths: tuple[int, ...]
    candidates: tuple[Candidate, ...]

    @classmethod
    def of(cls, seed: int) -> Instance:
        """One of many."""
        draw = random.Random(seed)
        lengths = tuple(draw.randint(1, 3) for _ in range(draw.randint(1, 2)))
        found = []
        for chain, length in enumerate(lengths):
            for start, end in ((s, e) for s in range(length) for e in range(s + 1, length + 1)):
                ways = [("merge", 0), ("merge", 1), ("fit", None), ("identity", None)]
                taken = [way for way in ways if draw.random() < 0.6]
                for kind, dropped in [("keep", None), *taken] if end == start + 1 else taken:
                    key, latency, loss = f"{chain}:{start}-{end} {kind} {dropped}", draw.randint(1, 30), draw.random()
                    reducible = draw.random() < 0.5
                    found.append(
                        Candidate(chain, start, end, key, kind, latency, reducible, 0.5, loss, dropped=dropped)
                    )
        return cls(lengths, tuple(found))

    def problem(self, method: Method) -> Problem:
        """What a method makes of it; all that lies outside of the blocks takes 3 ns."""
        return method.problem(self.lengths, self.candidates, fixed_ns=3, original_ns=100)

    def narrowable(self, method: Method) -> Problem:
        """The same where half of each tensor's channels take no longer than all, and are worth more."""
        ends = {(one.chain, end) for one in self.candidates for end in (one.start, one.end)}
        half = MeasuredWidth(4, loss_before=1.0, loss_after=0.0)
        groups = [MeasuredGroup(f"{chain}.{tensor}", 8, (half,)) for chain, tensor in sorted(ends)]
        candidates = [
            replace(one, widths=((f"{one.chain}.{one.start}", read), (f"{one.chain}.{one.end}", written)))
            for one in self.candidates
            for read, written in product((8, 4), repeat=2)
        ]
        return method.problem(self.lengths, candidates, 3, 100, groups)

    def plans(self, method: Method) -> list[tuple[int, float]]:
        """Latency and value of every plan of what a method admits, block by block."""
        own = [one for one in self.candidates if method.admits(one)]

        def tilings(chain: int, layer: int) -> Iterator[tuple[int, float]]:
            if layer == self.lengths[chain]:
                yield 0, 0.0
            for one in own:
                if (one.chain, one.start) == (chain, layer):
                    for latency, value in tilings(chain, one.end):
                        yield latency + one.latency_ns, value + method.importance(one)

        chains = product(*(list(tilings(chain, 0)) for chain in range(len(self.lengths))))
        return [(3 + sum(latency for latency, _ in plan), sum(value for _, value in plan)) for plan in chains]


class MethodConformance:
    """Tests of a ``Method``."""

    @pytest.fixture
    def method(self) -> Method:
        """The method, with the settings that it has by default."""
        raise NotImplementedError

    def test_its_name_is_its_own(self, method: Method) -> None:
        """No other method has it, and it can be written on a command line."""
        assert re.fullmatch("[a-z][a-z0-9-]*", method.name)
        others = [one for one in registered_methods() if type(one) is not type(method)]
        assert method.name not in [one.name for one in others]
        assert all(instance.problem(method).method == method.name for instance in _instances()[:3])

    def test_it_is_a_value(self, method: Method) -> None:
        """It is the same whoever makes it, and nobody changes it."""
        assert replace(method) == method and hash(replace(method)) == hash(method)
        with pytest.raises(AttributeError):
            method.name = "other"  # type: ignore[misc]

    def test_settings_can_be_options(self, method: Method) -> None:
        """Each is described, has a default of a type that text can become, and no other option's name."""
        commands = compress.command, solving.command
        for one in method.settings:
            assert one.help and type(one.default) in (int, float, str)
            for options in ([parameter.name for parameter in command.params] for command in commands):
                assert options.count(one.name) == (one.name in method_setting_names()), f"{one.name} is another option"
            assert getattr(replace(method, **{one.name: one.default}), one.name) == one.default

    def test_settings_that_are_no_numbers_are_refused(self, method: Method) -> None:
        """In words."""
        for one in method.settings:
            for value in (math.nan, math.inf) if isinstance(one.default, float) else ():
                with pytest.raises(UsageError, match=one.name):
                    replace(method, **{one.name: value})

    def test_every_layer_may_be_kept(self, method: Method) -> None:
        """Or a network in which nothing pays could not be planned."""
        assert all(method.admits(choice) for choice in _choices() if choice.kind is Kind.KEEP)

    def test_what_it_says_of_fits_is_so(self, method: Method) -> None:
        """Whoever admits fits says so, and nobody else does."""
        assert any(method.admits(choice) for choice in _choices() if choice.kind is Kind.FIT) == method.fits

    def test_what_it_says_of_widths_is_so(self, method: Method) -> None:
        """Whoever narrows does where it is worth it, and to nobody else are there any widths."""
        for instance in _instances():
            if method.narrows:
                plan = solve(instance.narrowable(method)).plan(-1)
                assert plan.widths and all(width.channels < width.full for width in plan.widths)
            else:
                assert instance.narrowable(method) == instance.problem(method)

    def test_a_choice_is_admitted_measured_or_not(self, method: Method) -> None:
        """What is measured for a method is what it plans with."""
        for choice in _choices():
            assert method.admits(choice) == method.admits(_candidate(choice)), choice.key

    def test_what_it_admits_it_is_given(self, method: Method) -> None:
        """And nothing else: no choice of a chain is lost."""
        assert for_method(_choices(), method) == tuple(filter(method.admits, _choices()))

    def test_what_it_admits_can_be_planned(self, method: Method) -> None:
        """Each choice is in the best plan where it costs nothing and is worth more than all others."""
        for instance in _instances():
            for best in filter(method.admits, instance.candidates):
                others = (replace(one, importance=0.0) for one in instance.candidates if one is not best)
                free = replace(best, latency_ns=0, importance=1.0)
                plan = _solved(replace(instance, candidates=(*others, free)), method).plan(-1)
                assert best.key in plan.keys

    def test_plans_tile_the_chains_with_what_it_admits(self, method: Method) -> None:
        """Block after block, and latencies and values are the sums of the choices'."""
        for instance in _instances():
            own = {one.key: one for one in instance.candidates if method.admits(one)}
            frontier = _solved(instance, method)
            for plan in map(frontier.plan, range(len(frontier))):
                assert tiling_fault(plan.items, instance.lengths) is None
                assert set(plan.keys) <= own.keys()
                assert plan.latency_ns == 3 + sum(own[key].latency_ns for key in plan.keys)
                assert plan.objective == pytest.approx(sum(item.value for item in plan.items), abs=1e-9)
                assert sum(own[key].layers for key in plan.keys) == sum(instance.lengths)

    def test_more_time_is_worth_more(self, method: Method) -> None:
        """Of two plans of a frontier, the slower is the better."""
        for frontier in _frontiers(method):
            points = list(zip(frontier.latency_ns.tolist(), frontier.value.tolist(), strict=True))
            assert all(fast[0] < slow[0] and fast[1] < slow[1] for fast, slow in pairwise(points))

    def test_no_plan_is_over_its_budget(self, method: Method) -> None:
        """And a budget below the fastest plan is refused."""
        for frontier in _frontiers(method):
            for budget_ns in {latency + more for latency in frontier.latency_ns.tolist() for more in (0, 1)}:
                plans = (frontier.best(budget_ns), *frontier.best_plans(budget_ns, 3))
                assert all(plan.latency_ns <= budget_ns for plan in plans)
            with pytest.raises(InfeasibleBudgetError):
                frontier.best(frontier.fastest.latency_ns - 1)

    def test_plans_are_the_best_of_all(self, method: Method) -> None:
        """Looking at every plan finds no better one; what two stages find is for tests of their own."""
        if isinstance(method, TwoStage):
            pytest.skip("a choice of a method of two stages is worth nothing by itself")
        for instance in _instances():
            frontier, plans = _solved(instance, method), instance.plans(method)
            assert frontier.fastest.latency_ns == min(latency for latency, _ in plans)
            for budget_ns in frontier.latency_ns.tolist():
                best = max(value for latency, value in plans if latency <= budget_ns)
                assert frontier.best(budget_ns).objective == pytest.approx(best, abs=1e-9)

    def test_a_smaller_loss_is_never_worth_less(self, method: Method) -> None:
        """Whatever the scale is."""
        values = [method.value(replace(KEEP, loss_after=loss / 8)) for loss in range(-24, 25)]
        assert values == sorted(values, reverse=True) and len(set(values)) > 1

    def test_an_importance_that_is_given_is_taken_as_it_is(self, method: Method) -> None:
        """A table is in the method's own scale."""
        for importance in (-1e6, -0.5, 0.0, 3.0):
            (item,) = method.problem([1], [replace(KEEP, importance=importance)], 0, 10).items
            assert item.value == importance


@cache
def _instances() -> tuple[Instance, ...]:
    return tuple(map(Instance.of, SEEDS))


def _solved(instance: Instance, method: Method) -> Frontier:
    return solve(instance.problem(method))


def _frontiers(method: Method) -> Iterator[Frontier]:
    return (_solved(instance, method) for instance in _instances())


@cache
def _choices() -> tuple[Choice, ...]:
    """Choices of every kind for blocks of one to three layers, as an enumeration of a network's has them."""
    blocks = product((1, 2, 3), (False, True))
    return tuple(choice for layers, reducible in blocks for choice in _of_block(layers, reducible))


def _of_block(layers: int, reducible: bool) -> Iterator[Choice]:
    block, every = Block(layers, 0, layers) if reducible else Block(layers, 4, 4 + layers), tuple(range(1, layers + 1))
    geometries = [Geometry(4, 4, (size, size)) for size in (1, 3, 5)]
    if layers == 1:
        yield Choice(block, Kind.KEEP, geometries[1], every, reducible)
    yield Choice(block, Kind.IDENTITY, None, (), reducible)
    for activation in (None, "relu"):
        yield from (Choice(block, Kind.FIT, one, (), reducible, activation) for one in geometries[:2])
        kept: Sequence[tuple[int, ...]] = [every[1:], every[:1], every]
        for one, layers_kept in zip(geometries, kept, strict=True):
            yield Choice(block, Kind.MERGE, one, layers_kept, reducible, activation)


def _candidate(choice: Choice) -> Candidate:
    block, kind = choice.block, str(choice.kind)
    traits = replace(KEEP, kind=kind, reducible=choice.reducible, dropped=choice.dropped)
    return replace(traits, start=block.start, end=block.end)
