"""Finding the gaps between the layers of chains, and the regions that one convolution may replace.

Ends of a region are tensors of chains, and results of what joins branches. A block of a single chain is no region: it
has choices of its own, exact ones among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import fx, nn

from trt_layermerge.network.activations import activation_name
from trt_layermerge.network.chain import Chain
from trt_layermerge.network.footprint import footprint
from trt_layermerge.network.nesting import Nesting, is_image
from trt_layermerge.network.placing import called_module
from trt_layermerge.network.region import ChainPosition, Gap, Region
from trt_layermerge.network.structure import structure_of

MOST_CONVOLUTIONS = 64
"""In one region: what one convolution takes the place of is seldom more."""


def find_regions(module: fx.GraphModule, chains: Sequence[Chain]) -> tuple[tuple[Gap, ...], tuple[Region, ...]]:
    """The gaps and regions of a normal form, by where they begin.

    Args:
        module: The normal form.
        chains: Its chains, in the order of ``nesting.in_layout``.
    """
    finder = _Finder(module, chains)
    gaps: list[Gap] = []
    regions: list[Region] = []
    for trail in finder.trails():
        steps = list(finder.steps(trail))
        numbers = {}
        for step, gap in enumerate(steps):
            if gap is not None:
                numbers[step] = len(gaps)
                gaps.append(gap)
        for start in range(len(steps)):
            for end in range(start + 1, len(steps) + 1):
                inside = [numbers[step] for step in range(start, end) if step in numbers]
                region = finder.region(len(regions), trail[start], trail[end], tuple(inside)) if inside else None
                if region is not None and region.convolutions > MOST_CONVOLUTIONS:
                    break
                if region is not None and region.convolutions > 1:
                    regions.append(region)
    return tuple(gaps), tuple(regions)


class _Finder:
    """One normal form with its chains, and where the nodes of their layers are."""

    def __init__(self, module: fx.GraphModule, chains: Sequence[Chain]) -> None:
        self.module, self.chains = module, chains
        self.nesting = Nesting(module)
        self.tensors = {chain.tensor(index) for chain in chains for index in range(len(chain) + 1)}
        self.readers = {layer.first: (chain.index, layer.index) for chain in chains for layer in chain.layers}
        self.own = set(_owned(chains))
        self.ends = {layer.output: (chain.index, layer.index) for chain in chains for layer in chain.layers}

    def trails(self) -> Iterator[list[fx.Node]]:
        """The trails, only tensors that a region may begin or end at."""
        for trail in self.nesting.trails:
            ends = [node for node in trail if is_image(node) and self._is_end(node)]
            if len(ends) > 1:
                yield ends

    def _is_end(self, node: fx.Node) -> bool:
        joins = sum(source in self.nesting.order and is_image(source) for source in node.all_input_nodes) > 1
        return node.name in self.tensors or (joins and node.name not in self.own)

    def steps(self, trail: Sequence[fx.Node]) -> Iterator[Gap | None]:
        """What lies between neighbours of a trail: a gap, or ``None`` for layers of one chain and their skips."""
        for start, end in pairwise(trail):
            nodes = self.nesting.inside(start, end)
            layers = self._layers(nodes)
            plain = {chain for chain, _ in layers}
            if len(plain) == 1 and self._is_block(start, end, layers):
                yield None
            else:
                structure = structure_of(self.module, sorted(nodes, key=self.nesting.order.__getitem__), start)
                shapes = start.meta["shape"], end.meta["shape"]
                yield Gap(start.name, end.name, layers, *shapes, structure, start.meta.get("multiple", 1))

    def _is_block(self, start: fx.Node, end: fx.Node, layers: Sequence[tuple[int, int]]) -> bool:
        (chain, first), (_, last) = layers[0], layers[-1]
        tensors = self.chains[chain]
        return tensors.tensor(first - 1) == start.name and tensors.tensor(last) == end.name

    def region(self, index: int, start: fx.Node, end: fx.Node, gaps: tuple[int, ...]) -> Region | None:
        """The region between two tensors; ``None`` where no convolution could take its place, or no layer is inside."""
        nodes = sorted(self.nesting.inside(start, end), key=self.nesting.order.__getitem__)
        layers = self._layers(nodes)
        alike = start.meta.get("multiple", 1) == end.meta.get("multiple", 1)
        whole = footprint(self.module, nodes, start, end) if layers and alike else None
        if whole is None:
            return None
        before, activation = self._last_activation(start, end)
        return Region(
            index,
            start.name,
            end.name,
            before.name,
            None if activation is None else end.name,
            activation,
            start.meta["shape"],
            end.meta["shape"],
            whole,
            ChainPosition(layers[0][0], layers[0][1] - 1),
            ChainPosition(*layers[-1]),
            layers,
            gaps,
            sum(isinstance(self._part(node), nn.Conv2d | nn.ConvTranspose2d) for node in nodes),
            start.meta.get("multiple", 1),
        )

    def _layers(self, nodes: Sequence[fx.Node] | set[fx.Node]) -> tuple[tuple[int, int], ...]:
        return tuple(sorted(self.readers[node.name] for node in nodes if node.name in self.readers))

    def _last_activation(self, start: fx.Node, end: fx.Node) -> tuple[fx.Node, str | None]:
        """What the last activation of a region is applied to, and its name; the end itself where it ends with none."""
        part = self._part(end)
        name = None if part is None else activation_name(part)
        before = end.all_input_nodes[0] if name is not None else end
        if name is None or before is start or len(before.users) > 1:
            return end, None
        return before, name

    def _part(self, node: fx.Node) -> nn.Module | None:
        return called_module(self.module, node)


def _owned(chains: Sequence[Chain]) -> Iterator[str]:
    """Nodes of sums that belong to a layer of a chain."""
    for chain in chains:
        for layer in chain.layers:
            yield from (*layer.adds, *layer.late_adds)
