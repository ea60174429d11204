"""Random chains of two to four units with every setting free: each block merged is the block linearised, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.lowering import lower
from trt_layermerge.merging.linear import LinearisedBlock, folded
from trt_layermerge.merging.proof import BLOCK_TOLERANCE, prove_block
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.padding import PaddedConv2d

SIZE = (23, 21)


def axes(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def geometries(draw: st.DrawFn, channels: int) -> Geometry:
    """Any kernel, stride, dilation, grouping, and padding on each side."""
    groups = draw(st.sampled_from([g for g in (1, 1, 2, 3, 4, 6) if channels % g == 0]))
    return Geometry(
        channels,
        groups * draw(st.integers(1, 6 // groups)),
        draw(axes(1, 4)),
        draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 2), (3, 1)])),
        (*draw(axes(0, 3)), *draw(axes(0, 3))),
        draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (2, 3)])),
        groups,
    )


@st.composite
def beside(draw: st.DrawFn, whole: Geometry) -> Geometry:
    """A convolution that leads from the input of ``whole`` to its output: the same grid, another kernel."""
    taken = [draw(st.integers(0, min(2, side))) for side in whole.padding]
    kernel = tuple(whole.kernel[axis] - taken[axis] - taken[axis + 2] for axis in (0, 1))
    assume(min(kernel) >= 1)
    sides = tuple(side - less for side, less in zip(whole.padding, taken, strict=True))
    return Geometry(whole.in_channels, whole.out_channels, kernel, whole.stride, sides)


def module_of(geometry: Geometry, *, bias: bool, norm: bool) -> nn.Sequential:
    g = geometry
    conv = nn.Conv2d(g.in_channels, g.out_channels, g.kernel, g.stride, 0, g.dilation, g.groups, bias)
    return nn.Sequential(PaddedConv2d(conv, g.padding), *([nn.BatchNorm2d(g.out_channels)] if norm else []))


@dataclass(frozen=True)
class Plain:
    """What a random chain is built from."""

    geometries: tuple[Geometry, ...]
    biases: tuple[bool, ...]
    norms: tuple[bool, ...]
    start: int
    end: int
    skip: Geometry
    late: bool


class Row(nn.Module):
    """Units with activations between, and one skip around some of them."""

    def __init__(self, plain: Plain) -> None:
        super().__init__()
        settings = zip(plain.geometries, plain.biases, plain.norms, strict=True)
        self.units = nn.ModuleList(module_of(g, bias=bias, norm=norm) for g, bias, norm in settings)
        self.acts = nn.ModuleList(nn.ReLU() for _ in plain.geometries)
        self.skip = module_of(plain.skip, bias=True, norm=plain.norms[0])
        self.start, self.end, self.late = plain.start, plain.end, plain.late

    def forward(self, x: Tensor) -> Tensor:
        tensors = [x]
        for index, (unit, act) in enumerate(zip(self.units, self.acts, strict=True), 1):
            x = unit(x)
            if index == self.end and not self.late:
                x = x + self.skip(tensors[self.start])
            x = act(x)
            if index == self.end and self.late:
                x = x + self.skip(tensors[self.start])
            tensors.append(x)
        return x


@st.composite
def plains(draw: st.DrawFn) -> Plain:
    rows: list[Geometry] = []
    size = SIZE
    for _ in range(draw(st.integers(2, 4))):
        rows.append(draw(geometries(rows[-1].out_channels if rows else 4)))
        size = rows[-1].output_size(size)
        assume(min(size) >= 1)
    start = draw(st.integers(0, len(rows) - 1))
    end = draw(st.integers(start + 1, len(rows)))
    whole = reduce(Geometry.then, rows[start:end], Geometry(rows[start].in_channels, rows[start].in_channels, (1, 1)))
    flags = st.tuples(*[st.booleans()] * len(rows))
    skip = draw(beside(replace(whole, groups=1)))
    return Plain(tuple(rows), draw(flags), draw(flags), start, end, skip, draw(st.booleans()))


def randomise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)


@settings(max_examples=60)
@given(plain=plains(), seed=st.integers(0, 2**16))
def test_every_merge_of_a_random_chain_is_exact(quick, plain: Plain, seed: int) -> None:
    torch.manual_seed(seed)
    module = Row(plain)
    randomise(module)
    network = quick(module, (4, *SIZE))
    merges = [
        choice
        for choice in choices_of(network, Limits(99, 4, bottleneck_activations=True))
        if choice.kind is Kind.MERGE
    ]
    for choice in merges:
        chain = network.chains[choice.block.chain]
        composed = lower(chain, choice).composed
        merged = folded(network.module, composed)
        assert merged.geometry == choice.geometry
        unmerged = LinearisedBlock(network.module, composed)
        assert prove_block(unmerged, merged).error <= BLOCK_TOLERANCE
        x = torch.randn(1, *chain.shape(choice.block.start), dtype=torch.float64)
        assert merged(x).shape[1:] == chain.shape(choice.block.end)
