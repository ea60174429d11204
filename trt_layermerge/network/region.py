"""Regions as values: parts of a network with one image in and one image out, whatever lies between. Torch-free.

A region is a single-entry single-exit part of the graph (Johnson, Pearson, Pingali, "The Program Structure Tree", PLDI
1994): every path to it leads through its input tensor, every path from it through its output tensor. Regions nest, and
those that follow one another make larger ones. Chains are numbered so that the layers inside any region stand in a row:
the positions ``start`` and ``end`` of a region lie on the one path that all chains make, laid end to end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from trt_layermerge.network.chain import ImageShape
from trt_layermerge.network.geometry import Geometry


class ChainPosition(NamedTuple):
    """A tensor by its chain and its number in it."""

    chain: int
    tensor: int


@dataclass(frozen=True)
class Gap:
    """What lies between two tensors and is no layer of a chain: a pooling, a concatenation with its branches, a gate.

    Attributes:
        input: Node of the tensor that it reads.
        output: Node of the tensor that it makes.
        layers: The layers of chains inside of it, as chain and number.
        input_shape: Channels, height and width of the input.
        output_shape: Of the output.
        structure: Hash of what it computes but for its weights: gaps with the same one cost the same.
        multiple: Images at once for each sample of the batch; see ``Chain``.
    """

    input: str
    output: str
    layers: tuple[tuple[int, int], ...]
    input_shape: ImageShape
    output_shape: ImageShape
    structure: str
    multiple: int = 1


@dataclass(frozen=True)
class Region:
    """A part of the network that one convolution may replace, at least one gap in it.

    Attributes:
        index: Its number in the network, from 0.
        input: Node of the tensor that it reads.
        output: Node of the tensor that it makes.
        before_activation: Node of what its last activation is applied to; ``output`` where it ends with none.
        act: Node of that activation.
        activation: Canonical name of that activation.
        input_shape: Channels, height and width of the input.
        output_shape: Of the output.
        geometry: The largest convolution that sees what an output pixel of the region depends on, gates left out.
        start: Where the first layer inside begins, on the path that all chains make.
        end: Where the last layer inside ends.
        layers: The layers inside, as chain and number.
        gaps: The gaps inside that lie in no other gap, as numbers in the network's.
        convolutions: How many convolutions are inside.
        multiple: Images at once for each sample of the batch; see ``Chain``.
    """

    index: int
    input: str
    output: str
    before_activation: str
    act: str | None
    activation: str | None
    input_shape: ImageShape
    output_shape: ImageShape
    geometry: Geometry
    start: ChainPosition
    end: ChainPosition
    layers: tuple[tuple[int, int], ...]
    gaps: tuple[int, ...]
    convolutions: int
    multiple: int = 1

    @property
    def keeps_shape(self) -> bool:
        """The output has the shape of the input, so that the region could be left out."""
        return self.input_shape == self.output_shape
