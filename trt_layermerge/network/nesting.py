"""How the parts of a normal form nest: its trails, the gaps between layers, and the regions that may be replaced whole.

A tensor *dominates* another if every path to that one leads through it, and *postdominates* it if every path on from it
does. Tensors in a row of which each dominates the next and is postdominated by it make a *trail*. Any two of one trail
are the ends of a single-entry single-exit region; so are the tensor that a branch leaves from and any tensor of the
branch, as long as nothing else reads what lies between; and there are no others (Johnson, Pearson, Pingali, PLDI 1994,
with the nodes of an acyclic graph in the place of its edges).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import networkx as nx
from torch import fx

from trt_layermerge.network.chain import Chain

ROOT = "the network's inputs"
"""Stands for what all inputs come from; names of nodes hold no spaces."""


class Nesting:
    """Trails of one normal form, and what lies between their tensors.

    Args:
        module: The normal form; nodes with a shape of three sizes hold images.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.order = {node: number for number, node in enumerate(module.graph.nodes)}
        (self.output,) = (node for node in self.order if node.op == "output")
        graph = nx.DiGraph()
        for node in self.order:
            # What depends on parameters alone is no data: it comes from nowhere, and dominates nothing.
            sources = [source for source in node.all_input_nodes if source in graph]
            if node.op == "placeholder":
                sources = [ROOT]
            graph.add_edges_from((source, node) for source in sources)
        dead = [node for node in graph if node is not ROOT and node is not self.output and not graph.out_degree(node)]
        graph.remove_nodes_from(dead)
        self.before = nx.immediate_dominators(graph, ROOT)
        self.behind = nx.immediate_dominators(graph.reverse(copy=False), self.output)

    @cached_property
    def trails(self) -> tuple[tuple[fx.Node, ...], ...]:
        """All trails, in order of execution; each begins with the tensor that it leaves from, if a region does."""
        follows = {
            node: then
            for node, then in self.behind.items()
            if node not in (ROOT, self.output) and then is not self.output and self.before.get(then) is node
        }
        later = set(follows.values())
        own = [tuple(_walk(node, follows)) for node in self.order if node in self.behind and node not in later]
        return tuple((*self._left_from(trail[0]), *trail) for trail in own if trail[0] is not self.output)

    def _left_from(self, first: fx.Node) -> tuple[fx.Node, ...]:
        """The tensor that a trail leaves from, unless something outside reads what lies between the two."""
        start = self.before[first]
        if start is ROOT:
            return ()
        nodes = self.inside(start, first)
        closed = all(user in nodes for node in nodes if node is not first for user in node.users)
        return (start,) if closed else ()

    def inside(self, start: fx.Node, end: fx.Node) -> set[fx.Node]:
        """The nodes between two tensors of a trail, the end among them."""
        found: set[fx.Node] = {end}
        todo = [end]
        while todo:
            for node in todo.pop().all_input_nodes:
                if node is not start and node not in found:
                    found.add(node)
                    todo.append(node)
        return found


def _walk(first: fx.Node, follows: Mapping[fx.Node, fx.Node]) -> Iterator[fx.Node]:
    node: fx.Node | None = first
    while node is not None:
        yield node
        node = follows.get(node)


def in_layout(module: fx.GraphModule, chains: Sequence[Chain]) -> tuple[Chain, ...]:
    """Chains, numbered so that those inside of any region stand in a row; in order of execution as far as that allows.

    Branches of a graph may be executed by turns; their chains are put branch after branch.
    """
    if len(chains) < 2:
        return tuple(chains)
    nesting = Nesting(module)
    nodes = {node.name: node for node in nesting.order}
    place = _Places(nesting)
    ordered = sorted(chains, key=lambda chain: place.of([nodes[layer.output] for layer in chain.layers]))
    return tuple(replace(chain, index=index) for index, chain in enumerate(ordered))


@dataclass(frozen=True)
class _Element:
    """What lies between two neighbours of a trail: the nodes, the trail's number, and the first node's place."""

    nodes: frozenset[fx.Node]
    trail: int
    first: int


class _Places:
    """Where nodes lie in the tree of trails, and of what lies between their neighbours."""

    def __init__(self, nesting: Nesting) -> None:
        self.order, self.trails = nesting.order, nesting.trails
        # A tensor that a trail leaves from is on a trail of its own, further out, which comes first.
        self.on: dict[fx.Node, int] = {}
        for number, trail in enumerate(nesting.trails):
            self.on |= {node: number for node in trail if node not in self.on}
        self.elements = [
            _Element(frozenset(nodes), number, min(map(nesting.order.__getitem__, nodes)))
            for number, trail in enumerate(nesting.trails)
            for start, end in pairwise(trail)
            if len(nodes := nesting.inside(start, end) - {end}) > 0
        ]

    def of(self, nodes: Sequence[fx.Node]) -> tuple[tuple[int, int], ...]:
        """Sorts before what is executed later; all that lies in one element, or in one trail, sorts together."""
        return min((self._of(node) for node in nodes), key=len)

    def _of(self, node: fx.Node) -> tuple[tuple[int, int], ...]:
        around = sorted((one for one in self.elements if node in one.nodes), key=lambda one: -len(one.nodes))
        levels = [(self._begin(one.trail), one.first) for one in around]
        own = self.on.get(node)
        return (*levels, (self.order[node] if own is None else self._begin(own), self.order[node]))

    def _begin(self, trail: int) -> int:
        """The place of the first tensor of a trail that is on no other."""
        return self.order[self.trails[trail][:2][-1]]


def is_image(node: fx.Node) -> bool:
    """Whether a node holds an image for each sample, or several: channels, height and width are known."""
    return len(node.meta.get("shape", ())) == 3 and node.meta.get("multiple", 1) is not None
