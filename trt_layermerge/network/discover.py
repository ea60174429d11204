"""Finding the chains of a normal form: where they start, which skips belong to them, and why they end.

From a tensor, the walk goes from unit to unit (``units.py``), through their pre-norms (``pre_norms.py``); at an
addition, before the activation or behind it, it asks whether the other operand is a tensor of its own path, directly or
through units, which makes a skip; sums of such tensors are taken term by term. A path with a tensor that something
outside it reads is cut at that tensor.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from torch import fx

from trt_layermerge.network.activations import activation_name
from trt_layermerge.network.chain import Break, Chain, Layer, Skip, Unit
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.nesting import in_layout
from trt_layermerge.network.pre_norms import pre_norm_of
from trt_layermerge.network.reasons import Reasons
from trt_layermerge.network.units import Units, sole_user


def find_chains(module: fx.GraphModule) -> tuple[tuple[Chain, ...], tuple[Break, ...]]:
    """The chains of a normal form in order of execution, and every break with its reason.

    A path without a convolution, such as a pooling by itself, is no chain.
    """
    finder = _Finder(module)
    chains: list[Chain] = []
    breaks = []
    taken: set[str] = set()
    for first in finder.units.firsts():
        if first.name in taken:
            continue
        reason = finder.units.unusable(first)
        if reason is not None:
            if finder.units.is_convolution(first):
                breaks.append(Break(str(first.target), reason))
            continue
        for forced in (False, True):  # forced where another branch of the same tensor went first
            if first.name not in taken:
                chain = finder.chain(len(chains), first, taken, forced=forced)
                if finder.has_convolution(chain):
                    chains.append(chain)
                    taken |= _nodes(chain)
    breaks.extend(Break(chain.layers[-1].name, chain.reason) for chain in chains)
    return in_layout(module, chains), tuple(breaks)


def _nodes(chain: Chain) -> set[str]:
    units: list[Unit] = [*chain.layers, *(unit for skip in chain.skips for unit in skip.units)]
    return {node for unit in units for node in (unit.conv, unit.norm) if node is not None}


@dataclass
class _Path:
    """A chain while it is walked: tensors 0..l, the layers between them, the skips found so far."""

    tensors: list[fx.Node]
    layers: list[Layer] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    reason: str = ""

    def cut(self, length: int, reason: str) -> _Path:
        skips = [skip for skip in self.skips if skip.end <= length]
        return _Path(self.tensors[: length + 1], self.layers[:length], skips, reason)


@dataclass
class _Sum:
    """What is added to a layer's result: the skips, the additions in order, and their total.

    Attributes:
        stop: Why the path ends, if the next addition is of no skip.
    """

    total: fx.Node
    skips: list[Skip] = field(default_factory=list)
    adds: list[str] = field(default_factory=list)
    stop: str | None = None


class _Finder:
    def __init__(self, module: fx.GraphModule) -> None:
        self.nodes = {node.name: node for node in module.graph.nodes}
        self.units = Units(module)
        self.reasons = Reasons(self.units)
        self.pre_norms = {first: pre_norm_of(self.units, first) for first in self.units.firsts()}

    def has_convolution(self, chain: Chain) -> bool:
        return any(self.units.is_convolution(self.nodes[layer.first]) for layer in chain.layers)

    def chain(self, index: int, first: fx.Node, taken: set[str], *, forced: bool = False) -> Chain:
        """The longest valid chain that starts at the input of ``first``; ``forced`` makes it the first layer."""
        path = self._walk(self.pre_norms[first][0], first if forced else None, taken)
        while (length := self._first_leak(path)) is not None:
            outside = set(path.tensors[length].users) - self._own_readers(path, length)
            path = path.cut(length, self.reasons.also_read(outside))
        start = path.tensors[0]
        return Chain(
            index, start.name, tuple(path.layers), tuple(path.skips), path.reason, start.meta.get("multiple") or 1
        )

    def _walk(self, start: fx.Node, first: fx.Node | None, taken: set[str]) -> _Path:
        path = _Path([start])
        while True:
            at_start = not path.layers
            unit = first if first and at_start else self._next(path.tensors[-1], taken, at_start=at_start)
            if isinstance(unit, str):
                path.reason = unit
                return path
            if (stop := self._advance(path, unit)) is not None:
                path.reason = stop
                return path

    def _next(self, tensor: fx.Node, taken: set[str], *, at_start: bool) -> fx.Node | str:
        """The first node of the unit that continues the path behind a tensor, or why there is none.

        1. No unit reads it, or only such as are taken by other paths: the path ends.
        2. Units that lead to an addition, and nowhere else, may be a skip's: where others are there, they are the path.
           One that reads through a pre-norm is never a skip's, for skips have none.
        3. Where several are there that no addition waits for, the path ends: which of them it goes on through would be
           chance. What only starts a path may branch: the first branch goes first, the others start paths of their own.
        4. Where all may be skips', the longest is the path, for a skip's own units are part of its block, and a block
           that is one convolution is cheaper the more it takes in; of equal ones the one with the largest kernels, so
           that the merged kernel is no larger than the path's own.
        """
        readers = [first for first, (source, _) in self.pre_norms.items() if source is tensor]
        readers = [first for first in readers if first.name not in taken and self.units.starts(first)]
        if not readers:
            return self.reasons.why_ends(tensor)
        lengths = {user: 0 if self.pre_norms[user][1] else self.units.length_to_addition(user) for user in readers}
        main = [user for user in readers if not lengths[user]]
        if len(main) > 1 and not at_start:
            return self.reasons.branches(main)
        if main:
            return max(main, key=self.units.is_convolution)  # the first of them
        return max(readers, key=lambda user: (lengths[user], *self._size(user)))

    def _size(self, first: fx.Node) -> tuple[bool, int]:
        return self.units.is_convolution(first), prod(self.units.unit(first)[0].geometry.kernel)

    def _advance(self, path: _Path, first: fx.Node) -> str | None:
        """Add the layer of a unit to the path; returns why the path ends behind it, if that is already known."""
        unit, result = self.units.unit(first)
        before = self._sum(path, result, unit.geometry)
        act, activation = self._activation(before.total) if before.stop is None else (None, None)
        behind = _Sum(before.total)
        if act is not None:
            behind = self._sum(path, self.units.behind(act), unit.geometry, late=True)
        layer = Layer(
            **vars(unit),
            index=len(path.layers) + 1,
            adds=tuple(before.adds),
            act=None if act is None else act.name,
            activation=activation,
            late_adds=tuple(behind.adds),
            output=behind.total.name,
            input_shape=path.tensors[-1].meta["shape"],
            output_shape=behind.total.meta["shape"],
            pre_norm=self.pre_norms[first][1],
        )
        path.layers.append(layer)
        path.skips += before.skips + behind.skips
        path.tensors.append(behind.total)
        return before.stop or behind.stop

    def _activation(self, tensor: fx.Node) -> tuple[fx.Node, str] | tuple[None, None]:
        """The activation that alone reads a tensor, and its canonical name."""
        user = sole_user(tensor)
        module = None if user is None else self.units.module(user)
        name = None if module is None else activation_name(module)
        if user is None or name is None or self.units.readers[str(user.target)] > 1:  # a PReLU may be shared
            return None, None
        return user, name

    def _sum(self, path: _Path, result: fx.Node, geometry: Geometry, *, late: bool = False) -> _Sum:
        """The skips that are added to a result of the layer that comes next."""
        found = _Sum(result)
        while (add := sole_user(found.total)) is not None and add.target is operator.add:
            if (other := _other(add, found.total)) is found.total:
                found.stop = self.reasons.ADDED_TO_ITSELF
                return found
            terms = list(self._terms(path, add, other))
            skips = [self._skip(path, inner, term, geometry, late) for inner, term in terms]
            found.stop = next((skip for skip in skips if isinstance(skip, str)), None)
            if found.stop is not None:
                return found
            found.skips += [skip for skip in skips if isinstance(skip, Skip)]
            found.adds += dict.fromkeys(node.name for node in (*(inner for inner, _ in terms), add))
            found.total = self.units.behind(add)
        return found

    def _terms(self, path: _Path, add: fx.Node, operand: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
        """What an addition adds, each with the addition that reads it: a sum that nothing else reads, term by term."""
        if operand.target is operator.add and len(operand.users) == 1 and operand not in path.tensors:
            for term in (arg for arg in operand.args if isinstance(arg, fx.Node)):
                yield from self._terms(path, operand, term)
        else:
            yield add, operand

    def _skip(self, path: _Path, add: fx.Node, operand: fx.Node, geometry: Geometry, late: bool) -> Skip | str:
        """The skip by which a tensor is added to the result of the next layer, or why it is none."""
        units: list[Unit] = []
        source = operand
        while source not in path.tensors:
            if (found := self.units.ending_at(source)) is None:
                return self.reasons.outside(operand)
            units.insert(0, found[0])
            source = found[1]
        start, end = path.tensors.index(source), len(path.layers) + 1
        skip = Skip(start, end, add.name, operand.name, tuple(units), late)
        branch = [*(layer.geometry for layer in path.layers[start:]), geometry]
        stride = (prod(g.stride[0] for g in branch), prod(g.stride[1] for g in branch))
        if stride != (skip.geometry.stride if skip.geometry else (1, 1)):  # of a single pixel, or nearly
            return self.reasons.other_stride(operand)
        return skip

    def _first_leak(self, path: _Path) -> int | None:
        """Number of the first tensor inside the path that something outside of it reads."""
        for index in range(1, len(path.layers)):
            if set(path.tensors[index].users) - self._own_readers(path, index):
                return index
        return None

    def _own_readers(self, path: _Path, index: int) -> set[fx.Node]:
        names = {path.layers[index].reader} if index < len(path.layers) else set()
        names |= {skip.first for skip in path.skips if skip.start == index}
        return {self.nodes[name] for name in names}


def _other(add: fx.Node, operand: fx.Node) -> fx.Node:
    first, second = (arg for arg in add.args if isinstance(arg, fx.Node))
    return second if first is operand else first
