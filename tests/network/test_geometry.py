from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional as F

from trt_layermerge.network.geometry import Geometry

small = st.integers(1, 3)
pads = st.integers(0, 3)


@st.composite
def geometries(draw: st.DrawFn, in_channels: int | None = None, out_channels: int | None = None) -> Geometry:
    groups = draw(st.sampled_from([1, 2, 4]))
    return Geometry(
        in_channels or groups * draw(small),
        out_channels or groups * draw(small),
        kernel=(draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        stride=(draw(small), draw(small)),
        padding=(draw(pads), draw(pads), draw(pads), draw(pads)),
        dilation=(draw(small), draw(small)),
        groups=groups,
    )


four = geometries(4, 4)
sizes = st.tuples(st.integers(30, 50), st.integers(30, 50))


@given(four, four, sizes)
def test_a_composition_maps_sizes_as_its_parts_do(first: Geometry, second: Geometry, size: tuple[int, int]) -> None:
    assert first.then(second).output_size(size) == second.output_size(first.output_size(size))


@given(four, four, four)
def test_composition_is_associative(a: Geometry, b: Geometry, c: Geometry) -> None:
    assert a.then(b).then(c) == a.then(b.then(c))


@given(four)
def test_the_identity_changes_nothing_but_writes_dilation_out(a: Geometry) -> None:
    one = Geometry(4, 4, (1, 1), groups=4)
    dense = Geometry(4, 4, a.extent, a.stride, a.padding, groups=a.groups)
    assert one.then(a) == a.then(one) == dense


@given(geometries(), st.integers(20, 30), st.integers(20, 30))
def test_output_size_is_torchs(geometry: Geometry, height: int, width: int) -> None:
    g, (top, left, bottom, right) = geometry, geometry.padding
    x = F.pad(torch.zeros(1, g.in_channels, height, width), (left, right, top, bottom))
    weight = torch.zeros(g.out_channels, g.in_channels // g.groups, *g.kernel)
    assert F.conv2d(x, weight, None, g.stride, 0, g.dilation, g.groups).shape[2:] == g.output_size((height, width))


@st.composite
def branches(draw: st.DrawFn) -> tuple[Geometry, Geometry]:
    """Two convolutions from the same input to the same output grid."""
    a, b = draw(four), draw(four)
    before, after = [], []
    for axis in (0, 1):
        total = a.padding[axis] + a.padding[axis + 2] - a.extent[axis] + b.extent[axis]
        assume(total >= 0)
        before.append(draw(st.integers(0, total)))
        after.append(total - before[-1])
    return a, replace(b, stride=a.stride, padding=(*before, *after))


@given(branches(), sizes)
def test_a_sum_is_symmetric_and_maps_sizes_as_both_do(pair: tuple[Geometry, Geometry], size: tuple[int, int]) -> None:
    a, b = pair
    both = a.beside(b)
    assert both == b.beside(a)
    assert both.output_size(size) == a.output_size(size)
    assert all(both.kernel[axis] >= max(a.extent[axis], b.extent[axis]) for axis in (0, 1))
    assert both.beside(a) == both


@given(four)
def test_a_sum_with_itself_is_itself_written_out(a: Geometry) -> None:
    assert a.beside(a) == Geometry(4, 4, a.extent, a.stride, a.padding, groups=a.groups)


@given(four, sizes)
def test_what_keeps_the_shape_keeps_every_shape(a: Geometry, size: tuple[int, int]) -> None:
    if a.keeps_shape:
        assert a.output_size(size) == size


@given(four, st.integers(1, 9), sizes)
def test_the_middle_has_the_same_output_pixels(a: Geometry, taps: int, size: tuple[int, int]) -> None:
    a = replace(a, dilation=(1, 1))
    middle = a.middle(taps)
    if middle is None:
        wanted = [min(taps, extent) for extent in a.kernel]
        assert any(
            min(before, after) < (extent - taps) // 2 or before + after < extent - taps
            for extent, taps, before, after in zip(a.kernel, wanted, a.padding[:2], a.padding[2:], strict=True)
        )
        return
    assert middle.kernel == (min(taps, a.kernel[0]), min(taps, a.kernel[1]))
    assert middle.output_size(size) == a.output_size(size)
    assert middle.beside(a) == a.beside(middle) == a  # it lies inside


@pytest.mark.parametrize(
    ("geometry", "keeps"),
    [
        (Geometry(4, 4, (3, 3), padding=(1, 1, 1, 1)), True),
        (Geometry(4, 4, (3, 3), padding=(2, 2, 2, 2), dilation=(2, 2)), True),
        (Geometry(4, 4, (1, 5), padding=(0, 2, 0, 2), groups=4), True),
        (Geometry(4, 4, (3, 3), padding=(2, 1, 0, 1)), False),
        (Geometry(4, 4, (3, 3)), False),
        (Geometry(4, 8, (1, 1)), False),
        (Geometry(4, 4, (1, 1), stride=(2, 1)), False),
    ],
)
def test_what_may_be_left_out(geometry: Geometry, keeps: bool) -> None:
    assert geometry.keeps_shape is keeps


def test_grouped_with_anything_else_becomes_the_smallest_grouping_that_holds_both() -> None:
    def grouped(groups: int) -> Geometry:
        return Geometry(12, 12, (3, 3), groups=groups)

    assert grouped(12).then(grouped(12)).groups == 12
    assert grouped(12).then(grouped(1)).groups == 1
    assert grouped(4).then(grouped(6)).groups == 2
    assert grouped(4).beside(grouped(6)).groups == 2


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="8 channels with 4"):
        Geometry(4, 8, (1, 1)).then(Geometry(4, 4, (1, 1)))
    with pytest.raises(ValueError, match="channels or stride differ"):
        Geometry(4, 4, (1, 1)).beside(Geometry(4, 4, (1, 1), (2, 2)))


def test_as_it_stands_in_tables() -> None:
    geometry = Geometry(16, 32, (3, 1), (2, 1), (1, 0, 2, 0), (1, 3), 4)
    assert str(geometry) == "16>32 k3x1 s2x1 p1,0,2,0 d1x3 g4"
