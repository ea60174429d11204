"""Composing convolutions: for any two of them, the one does what the two did."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import ceil, gcd
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.merging import algebra
from trt_layermerge.merging.algebra import (
    Convolution,
    add,
    compose,
    cropped,
    embed,
    from_modules,
    identity,
    regroup,
    to_module,
)
from trt_layermerge.network.geometry import Geometry, Pair

CHANNELS = st.sampled_from([1, 2, 3, 4, 6])
UNPADDED = (0, 0, 0, 0)


def pairs(most: int) -> st.SearchStrategy[Pair]:
    return st.tuples(st.integers(1, most), st.integers(1, most))


@st.composite
def convolutions(draw: st.DrawFn, inputs: int | None = None, outputs: int | None = None) -> Convolution:
    """Any convolution: even and uneven kernels, stride, dilation, uneven padding, dense to depthwise."""
    inputs, outputs = inputs or draw(CHANNELS), outputs or draw(CHANNELS)
    groups = draw(st.sampled_from([g for g in range(1, 7) if gcd(inputs, outputs) % g == 0]))
    sides = st.integers(0, 3)
    geometry = Geometry(
        inputs,
        outputs,
        draw(pairs(4)),
        draw(pairs(3)),
        draw(st.tuples(sides, sides, sides, sides)),
        draw(pairs(3)),
        groups,
    )
    return of(geometry, draw(st.integers(0, 2**16)))


def of(geometry: Geometry, seed: int = 0) -> Convolution:
    generator = torch.Generator().manual_seed(seed)
    shape = (geometry.out_channels, geometry.in_channels // geometry.groups, *geometry.kernel)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Convolution(geometry, weight, torch.randn(shape[0], generator=generator, dtype=torch.float64))


@st.composite
def rows_of(draw: st.DrawFn, count: int) -> tuple[Convolution, ...]:
    """Convolutions that can run one after the other."""
    widths = [draw(CHANNELS) for _ in range(count + 1)]
    return tuple(draw(convolutions(*pair)) for pair in itertools.pairwise(widths))


def noise(geometry: Geometry, more: Pair = (5, 4)) -> Tensor:
    """Input on which a convolution has some inside, whatever its padding."""
    size = [extent + extra for extent, extra in zip(geometry.extent, more, strict=True)]
    return torch.randn(2, geometry.in_channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def unpadded(convolution: Convolution) -> Convolution:
    return replace(convolution, geometry=replace(convolution.geometry, padding=UNPADDED))


def assert_same(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max().clamp_min(1)


@given(rows_of(2))
def test_composition_is_the_sequence_with_its_padding_hoisted(both):
    first, second = both
    composed = compose(first, second)
    assert composed.geometry == first.geometry.then(second.geometry)
    assert first.then(second).geometry == composed.geometry
    x = noise(composed.geometry)
    top, left, bottom, right = composed.geometry.padding
    assert_same(composed(x), unpadded(second)(unpadded(first)(F.pad(x, (left, right, top, bottom)))))


@given(rows_of(2), st.booleans())
def test_composition_is_the_plain_sequence_away_from_the_border(both, padded):
    first, second = both if padded else map(unpadded, both)
    composed = compose(first, second)
    g, x = composed.geometry, noise(composed.geometry, (14, 12))
    assume(min(first.geometry.output_size(x.shape[2:])) >= 1)
    actual, expected = composed(x), second(first(x))
    inside = []
    for axis in (0, 1):  # output pixels that read no padding
        low = ceil(g.padding[axis] / g.stride[axis])
        high = (x.shape[2 + axis] + g.padding[axis] - g.kernel[axis]) // g.stride[axis] + 1
        inside.append(slice(low, high))
    crop = (..., *inside)
    assert actual[crop].numel() > 0
    assert_same(actual[crop], expected[crop])
    if not padded:
        assert_same(actual, expected)


@given(rows_of(3))
def test_composition_is_associative(three):
    a, b, c = three
    left, right = compose(compose(a, b), c), compose(a, compose(b, c))
    assert left.geometry == right.geometry
    assert_same(left.weight, right.weight)
    assert_same(left.bias, right.bias)


@given(rows_of(2), st.integers(1, 200))
def test_a_composition_may_be_made_a_few_inputs_at_a_time(both, numbers):
    whole = compose(*both)
    with mock.patch.object(algebra, "NUMBERS_AT_ONCE", numbers):
        assert torch.equal(compose(*both).weight, whole.weight)


@given(convolutions())
def test_identity_is_neutral(a):
    x = noise(a.geometry)
    assert_same(compose(identity(a.geometry.in_channels), a)(x), a(x))
    assert_same(compose(a, identity(a.geometry.out_channels))(x), a(x))
    y = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    assert torch.equal(identity(3)(y), y)


@st.composite
def addends(draw: st.DrawFn) -> tuple[Convolution, Convolution]:
    """Two convolutions with the same output size for every input."""
    a = draw(convolutions())
    b = draw(convolutions(a.geometry.in_channels, a.geometry.out_channels))
    g, after = b.geometry, []
    for axis in (0, 1):
        surplus = a.geometry.padding[axis] + a.geometry.padding[axis + 2] - a.geometry.extent[axis]
        after.append(surplus + g.extent[axis] - g.padding[axis])
    assume(min(after) >= 0)
    padding = (g.padding[0], g.padding[1], after[0], after[1])
    return a, replace(b, geometry=replace(g, padding=padding, stride=a.geometry.stride))


@given(addends())
def test_addition_is_the_sum(both):
    a, b = both
    total = add(a, b)
    assert total.geometry == a.geometry.beside(b.geometry) == a.beside(b).geometry
    x = noise(total.geometry)
    assert_same(total(x), a(x) + b(x))


@settings(suppress_health_check=[HealthCheck.filter_too_much])  # few strides hide anything
@given(convolutions(4, 4), st.integers(0, 3), st.integers(8, 15))
def test_addition_where_a_stride_hides_that_sizes_differ(a, more, size):
    g = a.geometry
    top, left, bottom, right = g.padding
    b = replace(a, geometry=replace(g, padding=(top, left, bottom + more, right + more)))
    x = torch.randn(1, 4, size + g.extent[0], size + g.extent[1], dtype=torch.float64)
    assume(a(x).shape == b(x).shape)
    assert_same(add(a, b)(x), a(x) + b(x))


def test_addition_of_unlike_convolutions_is_refused():
    with pytest.raises(ValueError, match="channels or stride"):
        add(identity(2), identity(3))
    with pytest.raises(ValueError, match="cannot compose"):
        compose(identity(2), identity(3))


@given(convolutions(6, 6) | convolutions(4, 6) | convolutions(6, 3))
def test_fewer_groups_compute_the_same(a):
    x = noise(a.geometry)
    for groups in range(1, a.geometry.groups + 1):
        if a.geometry.groups % groups:
            with pytest.raises(ValueError, match="groups"):
                regroup(a, groups)
        else:
            assert regroup(a, groups).geometry == replace(a.geometry, groups=groups)
            assert_same(regroup(a, groups)(x), a(x))


@given(convolutions(), st.data())
def test_some_outputs_of_each_group_are_those_of_the_whole(a, data):
    groups, per_group = a.geometry.groups, a.geometry.out_channels // a.geometry.groups
    first = data.draw(st.integers(0, per_group - 1))
    some = slice(first, data.draw(st.integers(first + 1, per_group)))
    a, x = a.shifted(3), noise(a.geometry)
    shift = torch.randn(len(x), a.geometry.out_channels, 1, 1, dtype=x.dtype)
    expected = a(x, shift).unflatten(1, (groups, per_group))[:, :, some].flatten(1, 2)
    assert_same(a.outputs(some)(x, shift), expected)


def test_depthwise_stays_depthwise():
    a = of(Geometry(6, 6, (3, 3), padding=(1, 1, 1, 1), groups=6))
    assert compose(a, a).geometry.groups == 6
    assert compose(a, a).weight.shape == (6, 1, 5, 5)


@given(convolutions(), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))
def test_a_larger_frame_computes_the_same(a, top, left, bottom, right):
    g, (height, width) = a.geometry, a.geometry.extent
    frame = replace(
        g,
        kernel=(height + top + bottom, width + left + right),
        padding=(g.padding[0] + top, g.padding[1] + left, g.padding[2] + bottom, g.padding[3] + right),
        dilation=(1, 1),
    )
    framed = Convolution(frame, embed(a, frame), a.bias)
    x = noise(frame)
    assert_same(framed(x), a(x))


@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (2, 1, 0, 1)])
def test_a_frame_that_is_too_small_is_refused(padding):
    a = of(Geometry(1, 1, (3, 3), padding=(1, 1, 1, 1)))
    with pytest.raises(ValueError, match="does not fit"):
        embed(a, Geometry(1, 1, (3, 3), padding=padding))


@given(
    convolutions(4, 6) | convolutions(6, 6),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1e-5, 1e-3, 1e-1]),
)
def test_norms_are_folded(a, bias, affine, eps):
    g = a.geometry
    conv = nn.Conv2d(g.in_channels, g.out_channels, g.kernel, g.stride, 1, g.dilation, g.groups, bias).double()
    norm = nn.BatchNorm2d(g.out_channels, eps, affine=affine).double().eval()
    with torch.no_grad():
        conv.weight.copy_(a.weight)
        norm.running_mean.normal_(generator=torch.Generator().manual_seed(0))
        norm.running_var.uniform_(0.01, 4, generator=torch.Generator().manual_seed(1))
        if affine:
            norm.weight.normal_(generator=torch.Generator().manual_seed(2))
            norm.bias.normal_(generator=torch.Generator().manual_seed(3))
        x = noise(g)
        assert_same(from_modules(conv)(x), conv(x))
        assert_same(from_modules(conv, norm)(x), norm(conv(x)))


@given(convolutions())
def test_a_module_computes_what_the_value_does(a):
    x, before = noise(a.geometry), torch.get_rng_state()
    module = to_module(a, torch.float64)
    assert torch.equal(torch.get_rng_state(), before), "making a module must not move the global generator"
    assert_same(module(x), a(x))
    assert all(parameter.requires_grad and parameter.is_contiguous() for parameter in module.parameters())
    weight = a.weight.clone()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert torch.equal(a.weight, weight), "training the module must not change the value"


def test_modules_are_float32_unless_told():
    assert {p.dtype for p in to_module(identity(3)).parameters()} == {torch.float32}
    assert identity(3).to(torch.float32).weight.dtype == torch.float32


def test_shapes_are_checked_while_tests_run():
    a = of(Geometry(2, 3, (3, 3)))
    with pytest.raises(TypeCheckError):
        Convolution(a.geometry, a.weight[0], a.bias)
    with pytest.raises(TypeCheckError):
        Convolution(a.geometry, a.weight, a.bias[:2])
    with pytest.raises(TypeCheckError):
        a(torch.zeros(2, 5, 5, dtype=torch.float64))


@given(convolutions(), pairs(5))
def test_taps_that_meet_only_padding_can_go(convolution: Convolution, size: Pair) -> None:
    geometry = convolution.geometry
    assume(min(geometry.output_size(size)) > 0)
    x = torch.randn(2, geometry.in_channels, *size, dtype=torch.float64)
    less = cropped(convolution, size)
    torch.testing.assert_close(less(x), convolution(x))
    assert all((a - b) % 2 == 0 for a, b in zip(geometry.kernel, less.geometry.kernel, strict=True))
    if geometry.dilation == (1, 1):
        # On an input without zeros, one more pair of taps would be missed, or there is none to take.
        assert less.geometry.cropped(size) == less.geometry


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "left"),
    [(2, 7, 1, 3), (1, 7, 1, 1), (4, 7, 1, 7), (3, 7, 1, 5), (2, 7, 2, 3), (4, 7, 2, 7), (2, 3, 1, 3), (1, 4, 1, 2)],
)
def test_a_kernel_reaches_no_further_than_its_input(size: int, kernel: int, stride: int, left: int) -> None:
    half = kernel // 2
    geometry = Geometry(1, 1, (kernel, 1), (stride, 1), (half, 0, (kernel - 1) // 2, 0))
    less = geometry.cropped((size, 9))
    assert less.kernel == (left, 1) and less.output_size((size, 9)) == geometry.output_size((size, 9))
