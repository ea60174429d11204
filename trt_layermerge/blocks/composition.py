"""What a block computes once the activations inside it are gone, for anything that composes.

The same recursion serves geometries, weights and any other value with ``then`` (one after the other) and ``beside``
(the sum of two on the same input): V_start is the identity, V_l is layer l after V_{l-1}, plus every skip (s, l) inside
the block after V_s. A dropped layer passes on its input. A residual branch whose layers are all dropped is gone
altogether: what remains is its skip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Protocol, Self, TypeVar

from trt_layermerge.blocks.choice import Block
from trt_layermerge.network.chain import Chain, Layer, Skip
from trt_layermerge.network.geometry import Geometry


class Linear(Protocol):
    """A linear map that composes."""

    def then(self, second: Self) -> Self:
        """This map, and then ``second``."""
        ...

    def beside(self, other: Self) -> Self:
        """The sum of this map and ``other``."""
        ...


_T = TypeVar("_T", bound=Linear)


@dataclass(frozen=True)
class Composition:
    """Layers of a block in a row, and skips inside it, as one linear map.

    Attributes:
        chain: The chain.
        block: The block.
        kept: Numbers of the layers that are not dropped.
        skips: The skips that are part of the map.
    """

    chain: Chain
    block: Block
    kept: frozenset[int]
    skips: tuple[Skip, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that are not dropped, in order."""
        return tuple(self.chain.layers[index - 1] for index in sorted(self.kept))

    @cached_property
    def geometry(self) -> Geometry:
        """The one convolution that they make, idle taps cropped."""
        return self.uncropped.cropped(self.chain.shape(self.block.start)[1:])

    @cached_property
    def uncropped(self) -> Geometry:
        """The one convolution that they make, with all its taps."""
        whole: Geometry = self.interpret(
            identity=lambda channels: Geometry(channels, channels, (1, 1), groups=channels),
            layer=lambda layer: layer.geometry,
            skip=_geometry_of,
        )
        return whole

    @cached_property
    def tensors(self) -> frozenset[int]:
        """Numbers of the tensors that something reads: those that only a dropped branch leads through are not there."""
        read = {self.block.end}
        for index in range(self.block.end, self.block.start, -1):
            arriving = [skip for skip in self.skips if skip.end == index and index in read]
            read |= {skip.start for skip in arriving}
            if index in read and not any(map(self.drops, arriving)):
                read.add(index - 1)
        return frozenset(read)

    def drops(self, skip: Skip) -> bool:
        """Whether none of the layers that a skip leads around is kept."""
        return self.kept.isdisjoint(range(skip.start + 1, skip.end + 1))

    def interpret(
        self, *, identity: Callable[[int], _T], layer: Callable[[Layer], _T], skip: Callable[[Skip], _T]
    ) -> _T:
        """The map, made of maps of its parts.

        Args:
            identity: The identity map on this many channels.
            layer: The map of a layer, its norm included; of its pre-norm nothing.
            skip: The map of a skip that has a convolution of its own.
        """
        maps = {self.block.start: identity(self.chain.shape(self.block.start)[0])}

        def tensor(index: int) -> _T:
            # From the end backwards: what a dropped branch leads through is never composed, and its shapes need not
            # fit.
            if index not in maps:
                maps[index] = total(index)
            return maps[index]

        def total(index: int) -> _T:
            arriving = [item for item in self.skips if item.end == index]
            terms = [
                tensor(item.start) if item.geometry is None else tensor(item.start).then(skip(item))
                for item in arriving
            ]
            if not any(self.drops(item) for item in arriving):
                main = tensor(index - 1)
                terms.insert(0, main.then(layer(self.chain.layers[index - 1])) if index in self.kept else main)
            return reduce(lambda one, other: one.beside(other), terms)

        return tensor(self.block.end)


def _geometry_of(skip: Skip) -> Geometry:
    assert skip.geometry is not None
    return skip.geometry
