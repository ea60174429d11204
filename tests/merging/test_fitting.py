"""Fits: the solution is the least-squares one, and data that says little does no harm."""

from __future__ import annotations

import math
from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.nn import functional as F

from trt_layermerge.blocks.lowering import Shift
from trt_layermerge.errors import TaskError
from trt_layermerge.merging import columns, fitting, patches
from trt_layermerge.merging.algebra import Convolution
from trt_layermerge.merging.fitting import Fitted, NormalEquations, Patches, admissible_prior, equations_for
from trt_layermerge.merging.patches import formed_part, sample_positions, samples_by_batch, samples_needed, unknowns_of
from trt_layermerge.network.geometry import Geometry


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Anything that may be fitted: no dilation."""
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    inputs, outputs = (groups * draw(st.integers(1, 4 // groups)) for _ in range(2))
    kernel, stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), draw(st.integers(1, 2))
    sides = st.integers(0, 2)
    padding = draw(st.tuples(sides, sides, sides, sides))
    return Geometry(inputs, outputs, kernel, (stride, stride), padding, groups=groups)


def of(geometry: Geometry, seed: int = 0) -> Convolution:
    generator = torch.Generator().manual_seed(seed)
    shape = (geometry.out_channels, geometry.in_channels // geometry.groups, *geometry.kernel)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    return Convolution(geometry, weight, torch.randn(shape[0], generator=generator, dtype=torch.float64))


def noise(geometry: Geometry, images: int = 6, seed: int = 1, size: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, geometry.in_channels, size, size, dtype=torch.float64, generator=generator)


def fit(geometry: Geometry, x: Tensor, target: Tensor, prior: Convolution | None = None) -> fitting.Fitted:
    equations = NormalEquations(geometry)
    equations.add(x, target)
    return equations.solve(geometry, prior)


def size_of(a: Convolution) -> float:
    return float(a.weight.abs().max())


def distance(a: Convolution, b: Convolution) -> float:
    assert a.geometry == b.geometry
    return max(float((a.weight - b.weight).abs().max()), float((a.bias - b.bias).abs().max()))


@given(geometries())
def test_recovers_a_convolution_from_its_outputs(geometry):
    truth, x = of(geometry), noise(geometry)
    with mock.patch.object(fitting, "RIDGE", 1e-13):
        fitted = fit(geometry, x, truth(x))
    assert distance(fitted.convolution, truth) < 1e-9
    assert fitted.unexplained < 1e-12
    assert fitted.residual < 1e-9
    fitted = fit(geometry, x, truth(x))  # the real ridge shrinks a little
    assert distance(fitted.convolution, truth) < 1e-2 * size_of(truth)
    assert fitted.unexplained < 1e-5


@given(geometries())
def test_solution_is_optimal(geometry):
    """The gradient of the regularised sum of squares is 0, and no other weights have a lower one."""
    x, prior = noise(geometry).abs(), of(geometry, 5)
    target = F.relu(of(geometry, 3)(x)) + 0.1 * of(geometry, 4)(x) ** 2
    solution = fit(geometry, x, target, prior).convolution
    (top, left, bottom, right), groups = geometry.padding, geometry.groups
    patches = F.unfold(F.pad(x, (left, right, top, bottom)), geometry.kernel, stride=geometry.stride)
    squares = patches.square().sum((0, 2)).reshape(groups, -1).mean(1)
    ridge = fitting.RIDGE * squares.repeat_interleave(geometry.out_channels // groups)[:, None, None, None]

    def objective(weight: Tensor, bias: Tensor) -> Tensor:
        missed = Convolution(geometry, weight, bias)(x) - target
        return missed.square().sum() + (ridge * (weight - prior.weight).square()).sum()

    weight, bias = solution.weight.clone().requires_grad_(), solution.bias.clone().requires_grad_()
    best = objective(weight, bias)
    best.backward()
    scale = float(target.square().sum() * squares.max()) ** 0.5 + 1
    assert weight.grad.abs().max() < 1e-8 * scale
    assert bias.grad.abs().max() < 1e-8 * scale
    with torch.no_grad():
        for seed in range(3):
            step = of(geometry, seed)
            assert objective(weight + 1e-3 * step.weight, bias + 1e-3 * step.bias) >= best * (1 - 1e-12)


@given(geometries(), st.data())
def test_a_smaller_kernel_from_the_same_equations(geometry, data):
    """Solving for a part of the kernel is the same as having accumulated for that part."""
    p = geometry.padding
    kernel, padding = [], []
    for axis in (0, 1):
        before = data.draw(st.integers(0, min(p[axis], geometry.kernel[axis] - 1)))
        after = data.draw(st.integers(0, min(p[axis + 2], geometry.kernel[axis] - 1 - before)))
        kernel.append(geometry.kernel[axis] - before - after)
        padding.append((p[axis] - before, p[axis + 2] - after))
    sides = (padding[0][0], padding[1][0], padding[0][1], padding[1][1])
    small = replace(geometry, kernel=(kernel[0], kernel[1]), padding=sides)
    x, prior = noise(geometry), of(small, 7)
    target = of(geometry)(x).tanh()
    equations = NormalEquations(geometry)
    equations.add(x[:2], target[:2])
    equations.add(x[2:], target[2:])
    part, direct = equations.solve(small, prior), fit(small, x, target, prior)
    assert distance(part.convolution, direct.convolution) < 1e-9
    assert part.unexplained == pytest.approx(direct.unexplained, abs=1e-9)


def shifted(geometry: Geometry, channels: list[int], seed: int = 0) -> tuple[Convolution, list[Shift], list[Tensor]]:
    """A convolution that carries shifts of so many channels, and values of them for 16 images."""
    generator = torch.Generator().manual_seed(seed)
    shifts = [Shift(f"s{number}", number, count) for number, count in enumerate(channels, 2)]
    carries = {
        shift.number: torch.randn(geometry.out_channels, shift.channels, generator=generator).double()
        for shift in shifts
    }
    values = [torch.randn(16, count, 1, 1, generator=generator).double() for count in channels]
    return replace(of(geometry), carries=carries), shifts, values


@given(geometries(), st.lists(st.integers(1, 3), min_size=1, max_size=2))
def test_shifts_are_solved_for_with_the_weights(geometry, channels):
    """Exactly, in every group; in parts as at once; and drawn to those of a prior."""
    truth, shifts, values = shifted(geometry, channels)
    x, equations = noise(geometry, images=16), NormalEquations(geometry, shifts=shifts)
    for some in (slice(5), slice(5, 16)):
        part = [value[some] for value in values]
        equations.add(x[some], truth(x[some], *part), shifts=part)
    with mock.patch.object(fitting, "RIDGE", 1e-13):
        found = equations.solve(geometry)
    torch.testing.assert_close(found.convolution(x, *values), truth(x, *values), rtol=1e-8, atol=1e-8)
    assert list(found.convolution.carries) == [shift.number for shift in shifts]
    assert distance(found.convolution, truth) < 1e-8 and found.unexplained < 1e-12
    with mock.patch.object(fitting, "RIDGE", 1e9):
        drawn = NormalEquations(geometry, shifts=shifts)
        drawn.add(x, x.new_zeros(truth(x, *values).shape), shifts=values)
        prior = drawn.solve(geometry, truth).convolution
    for number, matrix in truth.carries.items():
        torch.testing.assert_close(prior.carries[number], matrix, rtol=1e-4, atol=1e-4)


def test_a_shift_of_a_single_image_is_that_of_all():
    geometry = Geometry(2, 3, (1, 1))
    truth, shifts, values = shifted(geometry, [2])
    x = noise(geometry, images=16)
    one, all_ = NormalEquations(geometry, shifts=shifts), NormalEquations(geometry, shifts=shifts)
    same = values[0][:1].expand(16, -1, -1, -1)
    one.add(x, truth(x, same), shifts=[same[:1]])
    all_.add(x, truth(x, same), shifts=[same])
    assert distance(one.solve(geometry).convolution, all_.solve(geometry).convolution) < 1e-12


@pytest.mark.parametrize(("limit", "most"), [("AT_ONCE", 7), ("UNFOLDED_BYTES", 12 * 19 * 7)])
def test_patches_are_unfolded_in_parts(limit, most):
    """Of so many at most; or of as many as there is memory for in 32 and 64 bits: each has 18 numbers, and a 1."""
    geometry = Geometry(2, 3, (3, 3), padding=(1, 1, 1, 1))
    x = noise(geometry)
    whole = fit(geometry, x, of(geometry)(x).relu())
    with mock.patch.object(patches, limit, most):
        assert {len(part) for part in patches.in_parts(torch.zeros(21, 3, dtype=torch.long), 19)} == {7}
        parts = fit(geometry, x, of(geometry)(x).relu())
    assert distance(whole.convolution, parts.convolution) < 1e-12


def test_few_samples_leave_the_prior():
    geometry = Geometry(3, 2, (3, 3), padding=(1, 1, 1, 1))
    prior, truth, x = of(geometry, 1), of(geometry, 2), noise(geometry, 1)
    equations = NormalEquations(geometry)
    equations.add(x, truth(x), torch.tensor([[0, 4, 4], [0, 2, 7]]))
    towards, plain = equations.solve(geometry, prior).convolution, equations.solve(geometry).convolution
    assert (towards.weight - prior.weight).norm() < 0.5 * (plain.weight - prior.weight).norm()
    assert (plain.weight.norm()) < 0.5 * prior.weight.norm()
    nothing = fit(geometry, 0 * x, prior(0 * x), prior).convolution  # zeros say nothing but the bias
    assert distance(nothing, prior) < 1e-12
    agreed = fit(geometry, x, prior(x), prior).convolution
    assert distance(agreed, prior) < 1e-9


@given(geometries(), st.sampled_from([0.0, 1.0, 1e-12, 1e6]), st.sampled_from(["noise", "zero", "constant"]))
def test_poor_data_gives_a_finite_fit(geometry, value, kind):
    """A dead or constant channel, and targets that are constant."""
    x = noise(geometry)
    x[:, 0] = value
    target = of(geometry)(noise(geometry, seed=2))
    target = {"noise": target, "zero": 0 * target, "constant": 0 * target + 0.1}[kind]
    for prior in (None, of(geometry, 3)):
        fitted = fit(geometry, x, target, prior)
        assert fitted.convolution.weight.isfinite().all()
        assert fitted.convolution.bias.isfinite().all()
        assert math.isfinite(fitted.unexplained) and fitted.unexplained >= 0
        if prior is None and kind != "constant":
            assert fitted.unexplained <= 1 + 1e-6


@given(geometries(), st.floats(0, 3))
def test_unexplained_is_what_is_missed(geometry, strength):
    x = noise(geometry)
    target = of(geometry)(x) + strength * torch.randn(of(geometry)(x).shape, dtype=torch.float64)
    fitted = fit(geometry, x, target)
    missed = (fitted.convolution(x) - target).square().sum()
    variance = (target - target.mean((0, 2, 3), keepdim=True)).square().sum()
    assert fitted.unexplained == pytest.approx(float(missed / variance), abs=1e-9)
    assert fitted.unexplained <= 1 + 1e-9


def test_what_cannot_be_solved_is_refused():
    geometry = Geometry(2, 2, (3, 3), padding=(1, 1, 1, 1))
    x = noise(geometry)
    equations = NormalEquations(geometry)
    with pytest.raises(ValueError, match="no samples"):
        equations.solve(geometry)
    equations.add(x, x)
    for other in (
        replace(geometry, kernel=(5, 5), padding=(2, 2, 2, 2)),
        replace(geometry, kernel=(1, 1), padding=(2, 0, 0, 2)),
        replace(geometry, kernel=(1, 1), padding=(0, 0, 0, 0), groups=2),
        replace(geometry, dilation=(2, 2)),
        replace(geometry, stride=(2, 2)),
    ):
        with pytest.raises(ValueError, match="no part of"):
            equations.solve(other)
    point = replace(geometry, kernel=(1, 1), padding=(0, 0, 0, 0))
    with pytest.raises(ValueError, match="does not fit"):
        equations.solve(point, of(geometry))
    with pytest.raises(ValueError, match="dilated"):
        NormalEquations(replace(geometry, dilation=(1, 2)))
    assert equations.finite
    equations.add(x / 0, x)
    assert not equations.finite
    with pytest.raises(ValueError, match="not finite"):
        equations.solve(geometry)


def test_shapes_are_checked():
    equations = NormalEquations(Geometry(2, 2, (1, 1)))
    with pytest.raises(TypeCheckError):
        equations.add(torch.zeros(2, 2, 3), torch.zeros(1, 2, 3, 3))
    with pytest.raises(TypeCheckError):
        equations.add(torch.zeros(1, 2, 3, 3), torch.zeros(2, 2, 3, 3))
    with pytest.raises(TypeCheckError):
        equations.add(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), torch.zeros(4, 2, dtype=torch.int64))


@given(st.tuples(*[st.integers(1, 5)] * 4), st.integers(0, 200), st.integers(0, 9))
def test_positions_are_pixels_each_once(shape, count, seed):
    positions = sample_positions(shape, count, torch.Generator().manual_seed(seed))
    pixels = set(map(tuple, positions.tolist()))
    assert len(pixels) == len(positions) == min(count, shape[0] * shape[2] * shape[3])
    assert all(0 <= i < shape[0] and 0 <= r < shape[2] and 0 <= c < shape[3] for i, r, c in pixels)
    assert torch.equal(positions, sample_positions(shape, count, torch.Generator().manual_seed(seed)))


def test_samples_grow_with_the_unknowns_and_are_shared_by_images():
    small, large = Geometry(1, 1, (1, 1)), Geometry(512, 8, (7, 7))
    assert samples_needed(small) == patches.FEWEST_SAMPLES
    assert samples_needed(large) == patches.MOST_KEPT  # without padding, no smaller kernel has the same pixels
    assert samples_needed(replace(large, padding=(3, 3, 3, 3))) == 10 * (512 * 9 + 1)
    assert samples_needed(Geometry(64, 8, (3, 3))) == 10 * (64 * 9 + 1)
    assert samples_needed(replace(large, in_channels=8, groups=8)) == patches.FEWEST_SAMPLES
    shares = samples_by_batch(4096, [torch.zeros(12, 1), torch.zeros(4, 1), torch.zeros(0, 1)])
    assert shares == [3072, 1024, 0]
    for nothing in ([], [torch.zeros(0, 1)]):
        with pytest.raises(TaskError, match="no calibration data"):
            samples_by_batch(4096, nothing)


WIDE, SMALL = (Geometry(4, 4, (size, size), padding=(size // 2,) * 4) for size in (5, 3))
FEW = {"LARGEST_SYSTEM": 40, "MOST_KEPT": 90}


@pytest.mark.parametrize(("outside", "gain"), [(0.0, 1.1), (1.0, 0.5)])
def test_few_patches_of_many_unknowns_do_no_harm(outside, gain):
    """A kernel with more unknowns than patches is no worse on other images than the smaller one inside it.

    It is better where what it is to make needs its outer taps.
    """
    truth = of(WIDE)
    inner = torch.zeros(5, 5, dtype=torch.float64)
    inner[1:-1, 1:-1] = 1
    weight = truth.weight * (inner + outside * (1 - inner) * (truth.weight.abs() > 1.0))

    def sums(x, seed):
        result = F.conv2d(x, weight, truth.bias, padding=2)
        return result + torch.randn(result.shape, generator=torch.Generator().manual_seed(seed)).double()

    x, other = noise(WIDE, images=20), noise(WIDE, images=20, seed=2)
    with mock.patch.multiple(patches, **FEW), mock.patch.object(fitting, "MOST_KEPT", 200 if outside else 90):
        assert formed_part(WIDE) == SMALL
        equations = equations_for(WIDE)
        equations.add(x, sums(x, 3))
        small, wide = equations.solve(SMALL), equations.solve(WIDE)
    assert isinstance(equations, Patches)
    assert distance(small.convolution, fit(SMALL, x, sums(x, 3)).convolution) < 1e-9

    def unseen(found: Fitted) -> float:
        geometry = found.convolution.geometry
        made = F.conv2d(other, found.convolution.weight, found.convolution.bias, padding=geometry.padding[0])
        return float((made - sums(other, 4)).square().mean())

    assert unseen(wide) <= gain * unseen(small)


def test_kept_patches_end_in_the_shifts_as_well():
    truth, shifts, values = shifted(SMALL, [3])
    x = noise(SMALL, images=16)
    with mock.patch.multiple(patches, **FEW):
        equations = equations_for(WIDE, shifts=shifts)
        assert isinstance(equations, Patches)
        equations.add(x, truth(x, *values), shifts=values)
        for geometry in (SMALL, WIDE):
            found = equations.solve(geometry)
            assert found.unexplained < 1e-4
            torch.testing.assert_close(found.convolution.carries[2], truth.carries[2], rtol=0.02, atol=0.02)


def test_what_is_not_finite_is_found_in_kept_patches_and_in_the_matrix_beside_them():
    with mock.patch.multiple(patches, **FEW):
        equations = equations_for(WIDE)
        equations.add(noise(WIDE), noise(WIDE))
        assert equations.finite
        equations.add(noise(WIDE) / 0, noise(WIDE))
        assert not equations.finite
        with pytest.raises(ValueError, match="not finite"):
            equations.solve(WIDE)


def test_without_a_smaller_kernel_the_prior_is_what_it_is_drawn_to():
    point = Geometry(4, 4, (1, 1))
    prior, x = of(point), noise(point, images=1, size=2)
    with mock.patch.multiple(patches, LARGEST_SYSTEM=3):
        assert formed_part(point) is None
        equations = equations_for(point)
        equations.add(x, F.conv2d(x, prior.weight, prior.bias))
        assert distance(equations.solve(point, prior).convolution, prior) < 1e-9


def test_a_prior_is_used_where_there_is_room_for_it():
    prior = of(SMALL)
    assert admissible_prior(prior, WIDE) is prior and admissible_prior(prior, SMALL) is prior
    assert admissible_prior(prior, Geometry(4, 4, (1, 1))) is None
    assert admissible_prior(prior, replace(WIDE, groups=4)) is None
    assert admissible_prior(prior, replace(WIDE, in_channels=8)) is None
    assert admissible_prior(None, WIDE) is None


@given(geometries(), st.integers(1, 80))
def test_the_part_of_which_a_matrix_is_formed_is_the_largest(geometry, most):
    with mock.patch.object(patches, "LARGEST_SYSTEM", most):
        part = formed_part(geometry)
    odd = (geometry.middle(size) for size in (1, 3))
    sizes = [unknowns_of(shape) for shape in (geometry, *odd) if shape and unknowns_of(shape) <= most]
    assert (None if part is None else unknowns_of(part)) == max(sizes, default=None)


@settings(max_examples=20)
@given(geometries(), st.integers(0, 1500), st.sampled_from([0, -1, 1 << 20]))
def test_outputs_solved_a_few_at_a_time_are_those_of_all_at_once(geometry, at_once, most):
    """From a matrix, or patches: drawn to a smaller kernel that is solved with them (-1), or to what is given."""
    truth, shifts, values = shifted(geometry, [3])
    x, prior = noise(geometry, images=16), of(replace(geometry, kernel=(1, 1), padding=(0, 0, 0, 0)), 5)
    most = unknowns_of(geometry) - 1 if most < 0 else most
    targets = truth(x, *values) ** 2
    few = sample_positions(targets.shape, 40, torch.Generator().manual_seed(0))
    with mock.patch.object(patches, "LARGEST_SYSTEM", most):
        equations = equations_for(geometry, shifts=shifts)
        assert isinstance(equations, NormalEquations if most > unknowns_of(geometry) else Patches)
        equations.add(x, targets, few, values)
        drawn_to = admissible_prior(prior, geometry)
        whole = equations.solve(geometry, drawn_to)
        with mock.patch.object(columns, "SOLVED_BYTES", at_once):
            parts = equations.solve(geometry, drawn_to)
    torch.testing.assert_close(parts.convolution.weight, whole.convolution.weight, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(parts.convolution.bias, whole.convolution.bias, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(parts.convolution.carries, whole.convolution.carries, rtol=1e-10, atol=1e-10)
    assert parts.unexplained == pytest.approx(whole.unexplained, rel=1e-9, abs=1e-12)
    assert max(parts.residual, whole.residual) < 1e-6
