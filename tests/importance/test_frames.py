"""Frames share what can be shared, sample what depends on nothing else, and keep to a limit of memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate as running
from unittest import mock

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from trt_layermerge.blocks.candidates import blocks_of, fit_geometries
from trt_layermerge.importance.frames import Frame, accumulate, frames_of, in_memory
from trt_layermerge.merging import algebra, columns, fitting, patches, ridge
from trt_layermerge.merging.fitting import NormalEquations, Patches
from trt_layermerge.merging.patches import unknowns_of
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.resources.memory import MOST_EQUATIONS


@pytest.fixture(scope="module")
def network(quick):
    """Four layers: behind the second one the kernel does not grow."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    return quick(nn.Sequential(*body, nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)), (3, 8, 8))


def places(network):
    """The blocks that begin the chain, as they end in the original."""
    (chain,) = network.chains
    return [(block, None) for block in blocks_of(chain, 12) if block.start == 0]


def test_blocks_of_equal_kernel_share_a_frame(network):
    members = places(network)
    found = frames_of(network, members, 7)
    assert [(frame.geometry.kernel, [block.end for block, _ in frame.places]) for frame in found] == [
        ((3, 3), [1]), ((5, 5), [2, 3, 4])
    ]  # fmt: skip
    assert [frame.geometry.kernel for frame in frames_of(network, members, 3)] == [(3, 3)]


def test_what_a_block_is_fitted_to_depends_on_nothing_else(network):
    """Alone, with others, in another order, in several passes: the same numbers."""
    members = places(network)
    batches = [torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(n)) for n in (5, 3)]
    with mock.patch.multiple(patches, FEWEST_SAMPLES=60, SAMPLES_PER_UNKNOWN=1):
        together = accumulate(network, frames_of(network, members[::-1], 7), batches)
        for place in members:
            alone = accumulate(network, frames_of(network, [place], 7), batches)[place]
            for geometry in fit_geometries(network, place, 7):
                one, other = (found.equations.solve(geometry, of=found.index) for found in (alone, together[place]))
                torch.testing.assert_close(one.convolution.weight, other.convolution.weight, rtol=1e-9, atol=1e-9)
                assert one.unexplained == pytest.approx(other.unexplained, rel=1e-9)


@pytest.mark.parametrize("largest", [30, patches.LARGEST_SYSTEM])
@pytest.mark.parametrize("memory", [0, 10_000])
def test_a_batch_may_be_looked_at_a_few_images_at_a_time(network, largest, memory):
    """What is sampled, and kept, is the same; sums of float64 differ in their order alone."""
    members, batches = places(network), [torch.randn(n, 3, 8, 8, dtype=torch.float64) for n in (5, 3)]
    double = replace(network, module=network.module.double())
    with mock.patch.multiple(patches, LARGEST_SYSTEM=largest, FEWEST_SAMPLES=60, SAMPLES_PER_UNKNOWN=1):
        found = frames_of(double, members, 7)
        whole, parts = accumulate(double, found, batches), accumulate(double, found, batches, memory)
        network.module.float()
        for place in members:
            for geometry in fit_geometries(network, place, 7):
                one, other = (each[place].equations.solve(geometry, of=each[place].index) for each in (whole, parts))
                torch.testing.assert_close(one.convolution.weight, other.convolution.weight, rtol=1e-9, atol=1e-9)


def test_groups_keep_to_the_limit():
    sizes = [Frame(Geometry(channels, 1, (3, 3)), ()) for channels in (40, 10, 10, 50, 10)]
    limit = sizes[0].bytes + sizes[1].bytes
    groups = list(in_memory(sizes, limit))
    assert [frame for group in groups for frame in group] == sizes
    assert all(len(group) == 1 or sum(frame.bytes for frame in group) <= limit for group in groups)
    assert len(groups) > 1


def test_no_frame_is_above_the_limit():
    """As wide as networks are: 512 channels at 7x7, 1,280 at 3x3, and the largest matrix that is formed."""
    for geometry in (Geometry(512, 1, (7, 7)), Geometry(1280, 1, (3, 3)), Geometry(8192, 1, (1, 1))):
        assert Frame(geometry, ()).bytes <= MOST_EQUATIONS


@pytest.mark.parametrize("sizes", [(1, 3, 5, 7), (7, 5, 3, 1)], ids=["smaller first", "larger first"])
@pytest.mark.parametrize("solved_bytes", [1 << 14, 64 << 20], ids=["some outputs", "all outputs"])
@pytest.mark.parametrize(("channels", "outputs"), [(8, (8, 8)), (8, (300, 40, 8)), (4, (400,))])
def test_equations_and_fits_from_them_take_no_more_than_their_frame_says(channels, outputs, solved_bytes, sizes):
    """At the worst moment of all kernels of all blocks, and not much less: right sides and solutions are large, too."""
    full, prior = Geometry(channels, 1, (7, 7), padding=(3, 3, 3, 3)), algebra.identity(channels)
    images = torch.randn(1, channels, 8, 8), [torch.randn(1, count, 8, 8) for count in outputs]
    with (
        mock.patch.object(columns, "SOLVED_BYTES", solved_bytes),
        mock.patch.object(fitting, "SOLVED_BYTES", solved_bytes),
        mock.patch.object(patches, "AT_ONCE", 8),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen,
    ):
        equations = NormalEquations(full, len(outputs))
        for _ in range(10):
            equations.add(*images)
        for index, count in enumerate(outputs):
            for size in sizes:
                equations.solve(
                    replace(full.middle(size), out_channels=count), prior if count == channels else None, index
                )
        said = Frame(full, (), outputs=outputs).bytes
    assert 0.7 * said <= _most(seen) <= said


def test_kept_patches_and_fits_from_them_take_no_more_than_their_frame_says():
    """At the worst moment of all kernels of all blocks, and not much less."""
    full, outputs, few = Geometry(16, 1, (7, 7), padding=(3, 3, 3, 3)), (8, 200), {"MOST_KEPT": 128}
    with (
        mock.patch.multiple(patches, **few, LARGEST_SYSTEM=16 * 9, FEWEST_SAMPLES=648, SAMPLES_PER_UNKNOWN=1),
        mock.patch.multiple(fitting, **few, SOLVED_BYTES=1 << 16, COLUMNS_AT_ONCE=64),
        mock.patch.object(columns, "SOLVED_BYTES", 1 << 16),
        mock.patch.object(ridge, "COLUMNS_AT_ONCE", 64),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen,
    ):
        equations = Patches(full, len(outputs))
        for _ in range(4):
            equations.add(torch.randn(2, 16, 9, 9), [torch.randn(2, count, 9, 9) for count in outputs])
        for index, count in enumerate(outputs):
            for size in (1, 3, 5, 7):
                equations.solve(replace(full.middle(size), out_channels=count), of=index)
        said = Frame(full, (), outputs=outputs).bytes
    assert 0.7 * said <= _most(seen) <= said


def _most(seen):
    """Bytes that tensors took at the worst moment."""
    found = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    found.sort(key=lambda event: event.start_ns())
    return max(running(event.nbytes() for event in found))


def test_large_kernels_keep_patches_beside_the_matrix_of_smaller_ones(network):
    """What is small enough is solved as ever; what is not, from patches, drawn to it as strongly as is best."""
    members = places(network)
    batches = [torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)]
    double = replace(network, module=network.module.double())
    formed = accumulate(double, frames_of(double, members, 7), batches)
    with mock.patch.object(patches, "LARGEST_SYSTEM", 30):
        kept = accumulate(double, frames_of(double, members, 7), batches)
    network.module.float()
    for place in members:
        *smaller, largest = fit_geometries(network, place, 7)
        assert isinstance(formed[place].equations, NormalEquations)
        assert isinstance(kept[place].equations, Patches if largest.kernel == (5, 5) else NormalEquations)
        for geometry in (*smaller, largest):
            one, other = (found[place].equations.solve(geometry, of=found[place].index) for found in (formed, kept))
            same = unknowns_of(geometry) <= 30
            close = 1e-9 if same else 0.5
            torch.testing.assert_close(one.convolution.weight, other.convolution.weight, rtol=close, atol=close)
            assert one.unexplained == pytest.approx(other.unexplained, abs=1e-9 if same else 0.3)
            assert max(one.residual, other.residual) < 1e-6
