"""Finding the chains of a normal form: where they start, which skips belong to them, and why they end.

From a tensor, the walk goes from convolution to convolution, through their fronts (``fronts.py``); at an addition it
asks whether the other operand is a tensor of its own path, directly or through one convolution or batch norm, which
makes a skip; sums of such tensors are taken term by term. A path with a tensor that something outside it reads is cut
at that tensor.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from torch import fx, nn

from trt_layermerge.network.activations import activation_name
from trt_layermerge.network.chain import Break, Chain, Layer, Skip
from trt_layermerge.network.fronts import front_of, shift_of
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.padding import geometry_of


def find_chains(module: fx.GraphModule) -> tuple[tuple[Chain, ...], tuple[Break, ...]]:
    """The chains of a normal form in order of execution, and every break with its reason."""
    finder = _Finder(module)
    chains: list[Chain] = []
    breaks = []
    taken: set[str] = set()
    for conv in finder.convolutions():
        if conv.name in taken:
            continue
        reason = finder.unusable(conv)
        if reason is not None:
            breaks.append(Break(str(conv.target), reason))
            continue
        chain = finder.chain(len(chains), conv, taken)
        taken.update(layer.conv for layer in chain.layers)
        taken.update(skip.conv for skip in chain.skips if skip.conv is not None)
        if conv.name not in taken:  # another branch of the same tensor went first
            chains.append(chain)
            chain = finder.chain(len(chains), conv, taken, forced=True)
            taken.update(layer.conv for layer in chain.layers)
        chains.append(chain)
    breaks.extend(Break(chain.layers[-1].name, chain.reason) for chain in chains)
    return tuple(chains), tuple(breaks)


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


class _Finder:
    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.nodes = {node.name: node for node in module.graph.nodes}
        calls = (str(node.target) for node in module.graph.nodes if node.op == "call_module")
        self.uses = Counter(calls)
        self.fronts = {conv: front_of(module, conv, self.uses) for conv in self.convolutions()}

    def convolutions(self) -> Iterator[fx.Node]:
        """All convolutions, in order of execution."""
        for node in self.module.graph.nodes:
            if isinstance(self._module(node), nn.Conv2d):
                yield node

    def unusable(self, conv: fx.Node) -> str | None:
        """Why a convolution can be in no chain, in words; ``None`` if it can."""
        if self.uses[str(conv.target)] > 1:
            return "its weights are shared: it is called more than once"
        shapes = [node.meta.get("shape", ()) for node in (conv, conv.all_input_nodes[0])]
        if any(len(shape) != 3 for shape in shapes):
            return "the size of its input is not fixed"
        return None

    def chain(self, index: int, conv: fx.Node, taken: set[str], *, forced: bool = False) -> Chain:
        """The longest valid chain that starts at the input of ``conv``; ``forced`` makes ``conv`` its first layer."""
        path = self._walk(self.fronts[conv][0], conv if forced else None, taken)
        while (length := self._first_leak(path)) is not None:
            path = path.cut(length, self._why_leaks(path, length))
        return Chain(index, path.tensors[0].name, tuple(path.layers), tuple(path.skips), path.reason)

    def _walk(self, start: fx.Node, first: fx.Node | None, taken: set[str]) -> _Path:
        path = _Path([start])
        while True:
            at_start = not path.layers
            conv = first if first and at_start else self._next(path.tensors[-1], taken, at_start=at_start)
            if isinstance(conv, str):
                path.reason = conv
                return path
            if (stop := self._advance(path, conv)) is not None:
                path.reason = stop
                return path

    def _next(self, tensor: fx.Node, taken: set[str], *, at_start: bool) -> fx.Node | str:
        """The convolution that continues the path behind a tensor, or why there is none.

        What only starts a path may branch: the first branch goes first, the others start paths of their own.
        """
        readers = [conv for conv, (source, _) in self.fronts.items() if source is tensor]
        readers = [conv for conv in readers if conv.name not in taken and self.unusable(conv) is None]
        if not readers:
            return self._why_ends(tensor)
        main = [user for user in readers if not self._feeds_addition(user)]
        if len(main) > 1 and not at_start:
            return f"its output branches into {len(main)} convolutions"
        return main[0] if main else max(readers, key=lambda n: self._convolution(n).weight[0, 0].numel())

    def _feeds_addition(self, conv: fx.Node) -> bool:
        """Whether a convolution's result goes straight into an addition: it may be a skip's own."""
        out, _ = self._unit(conv)
        user = _sole_user(out)
        return user is not None and user.target is operator.add

    def _unit(self, conv: fx.Node) -> tuple[fx.Node, fx.Node | None]:
        """A convolution's result behind its shift and its norm, and the norm."""
        shifted, _ = shift_of(conv) or (conv, None)
        user = _sole_user(shifted)
        module = None if user is None else self._module(user)
        if user is not None and isinstance(module, nn.BatchNorm2d) and self.uses[str(user.target)] == 1:
            return user, user
        return shifted, None

    def _advance(self, path: _Path, conv: fx.Node) -> str | None:
        """Add the layer of ``conv`` to the path; returns why the path ends behind it, if that is already known."""
        module = self._convolution(conv)
        result, norm = self._unit(conv)
        shifted, shift = shift_of(conv) or (None, None)
        skips, adds, stop = self._skips(path, result, geometry_of(module))
        total = adds[-1] if adds else result
        act, activation = self._activation(total) if stop is None else (None, None)
        out = act or total
        layer = Layer(
            index=len(path.layers) + 1,
            name=str(conv.target),
            conv=conv.name,
            norm=_name(norm),
            adds=tuple(add.name for add in adds),
            act=_name(act),
            activation=activation,
            geometry=geometry_of(module),
            bias=norm is not None or module.bias is not None,
            input_shape=path.tensors[-1].meta["shape"],
            output_shape=out.meta["shape"],
            front=self.fronts[conv][1],
            shift=_name(shift),
            shifted=_name(shifted),
        )
        path.layers.append(layer)
        path.skips += skips
        path.tensors.append(out)
        return stop

    def _activation(self, tensor: fx.Node) -> tuple[fx.Node, str] | tuple[None, None]:
        """The activation that alone reads a tensor, and its canonical name."""
        user = _sole_user(tensor)
        module = None if user is None else self._module(user)
        name = None if module is None else activation_name(module)
        if user is None or name is None or self.uses[str(user.target)] > 1:  # a PReLU may be shared
            return None, None
        return user, name

    def _skips(self, path: _Path, result: fx.Node, geometry: Geometry) -> tuple[list[Skip], list[fx.Node], str | None]:
        """The skips added to a layer's result, the additions, and why the path ends if an addition is of no skip."""
        skips: list[Skip] = []
        adds: list[fx.Node] = []
        while (add := _sole_user(result)) is not None and add.target is operator.add:
            if (other := _other(add, result)) is result:
                return skips, adds, "is added to itself"
            terms = list(self._terms(path, add, other))
            found = [self._skip(path, inner, term, geometry) for inner, term in terms]
            for skip in found:
                if isinstance(skip, str):
                    return skips, adds, skip
            skips += [skip for skip in found if isinstance(skip, Skip)]
            inner_adds = dict.fromkeys(inner for inner, _ in terms if inner is not add)
            adds += [*inner_adds, add]
            result = add
        return skips, adds, None

    def _terms(self, path: _Path, add: fx.Node, operand: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
        """What an addition adds, each with the addition that reads it: a sum that nothing else reads, term by term."""
        if operand.target is operator.add and len(operand.users) == 1 and operand not in path.tensors:
            for term in (arg for arg in operand.args if isinstance(arg, fx.Node)):
                yield from self._terms(path, operand, term)
        else:
            yield add, operand

    def _skip(self, path: _Path, add: fx.Node, other: fx.Node, geometry: Geometry) -> Skip | str:
        """The skip by which a tensor is added to the result of the next layer, or why it is none."""
        end = len(path.layers) + 1
        if other in path.tensors:
            skip = Skip(path.tensors.index(other), end, add.name)
        elif self._lone_norm(other) and (source := other.all_input_nodes[0]) in path.tensors:
            channels = other.meta["shape"][0]
            skip = Skip(
                path.tensors.index(source),
                end,
                add.name,
                name=str(other.target),
                norm=other.name,
                geometry=Geometry(channels, channels, (1, 1), groups=channels),
                bias=True,
            )
        elif (conv := self._projection(other)) is not None and (source := conv.all_input_nodes[0]) in path.tensors:
            module, norm = self._convolution(conv), self._unit(conv)[1]
            skip = Skip(
                path.tensors.index(source),
                end,
                add.name,
                name=str(conv.target),
                conv=conv.name,
                norm=_name(norm),
                geometry=geometry_of(module),
                bias=norm is not None or module.bias is not None,
            )
        else:
            return f"adds a tensor from outside the chain ({self._describe(other)})"
        branch = [*(layer.geometry for layer in path.layers[skip.start :]), geometry]
        stride = (prod(g.stride[0] for g in branch), prod(g.stride[1] for g in branch))
        if stride != (skip.geometry.stride if skip.geometry else (1, 1)):  # of a single pixel, or nearly
            return f"adds a tensor of another stride ({self._describe(other)})"
        return skip

    def _lone_norm(self, operand: fx.Node) -> bool:
        """Whether an operand is the result of a batch norm that is read by nobody else."""
        norm = isinstance(self._module(operand), nn.BatchNorm2d)
        return norm and len(operand.users) == 1 and self.uses[str(operand.target)] == 1

    def _projection(self, operand: fx.Node) -> fx.Node | None:
        """The convolution of whose unit, read by nobody else, an operand is the result."""
        inputs = operand.all_input_nodes
        for conv in (operand, *inputs[:1]):
            if isinstance(self._module(conv), nn.Conv2d):
                whole = self._unit(conv)[0] is operand and len(operand.users) == 1 and shift_of(conv) is None
                return conv if whole and self.unusable(conv) is None else None
        return None

    def _first_leak(self, path: _Path) -> int | None:
        """Number of the first tensor inside the path that something outside of it reads."""
        for index in range(1, len(path.layers)):
            if set(path.tensors[index].users) - self._own_readers(path, index):
                return index
        return None

    def _own_readers(self, path: _Path, index: int) -> set[fx.Node]:
        names = {path.layers[index].first} if index < len(path.layers) else set()
        names |= {skip.conv or skip.norm or skip.add for skip in path.skips if skip.start == index}
        return {self.nodes[name] for name in names}

    def _why_leaks(self, path: _Path, index: int) -> str:
        outside = set(path.tensors[index].users) - self._own_readers(path, index)
        return f"its output is also read by {', '.join(sorted(self._describe(node) for node in outside))}"

    def _why_ends(self, tensor: fx.Node) -> str:
        if not tensor.users:
            return "nothing reads its output"
        return "feeds " + ", ".join(dict.fromkeys(self._describe(user) for user in tensor.users))

    def _describe(self, node: fx.Node) -> str:
        if node.op == "output":
            return "the network's output"
        module = self._module(node)
        if isinstance(module, nn.GroupNorm):
            return "a group norm, whose statistics come from the data, so that it cannot be folded"
        if isinstance(module, nn.Conv2d):
            return f"convolution {node.target}"
        if module is not None:
            return f"{type(module).__name__} {node.target}"
        name = str(getattr(node.target, "__name__", node.target)).split(".")[0]
        if "pad" in name:
            return "padding that is part of no convolution"
        return "an addition that is no skip of this chain" if node.target is operator.add else name

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.module.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _convolution(self, node: fx.Node) -> nn.Conv2d:
        module = self._module(node)
        assert isinstance(module, nn.Conv2d)
        return module


def _name(node: fx.Node | None) -> str | None:
    return None if node is None else node.name


def _sole_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _other(add: fx.Node, operand: fx.Node) -> fx.Node:
    first, second = (arg for arg in add.args if isinstance(arg, fx.Node))
    return second if first is operand else first
