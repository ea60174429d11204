"""Convolutions as values, and how they compose: pure functions of weights.

All zero padding of a composition stands at its input (design, section 4), so that a composition is exactly equal to its
parts when they run without padding of their own on an input that was padded once.

A shift, one number for each sample and channel that is added at every pixel, is a bias that the data decides on. What
a later convolution makes of it is the same at every pixel too, its kernel summed over space times the shift, because no
padding comes between (LayerMerge, on DDPM). Compositions carry shifts as they carry biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.merging.modules import Shifted
from trt_layermerge.network.device import CPU
from trt_layermerge.network.geometry import Geometry, Pair
from trt_layermerge.network.padding import PaddedConv2d, geometry_of
from trt_layermerge.network.pooling import pooling_geometry, pooling_weight

NUMBERS_AT_ONCE = 1 << 23
"""Numbers of a composition that are made at a time: what makes them takes a multiple of their memory."""


@dataclass(frozen=True)
class Convolution:
    """A 2-D convolution with its weights.

    Attributes:
        geometry: Everything but the weights.
        weight: ``[out, in / groups, height, width]``.
        bias: ``[out]``.
        carries: By the number of the shift, the matrix through which it is added to the result.
    """

    geometry: Geometry
    weight: Float[Tensor, "out in_per_group height width"]
    bias: Float[Tensor, " out"]
    carries: Mapping[int, Float[Tensor, "out _"]] = field(default_factory=dict)

    def __call__(
        self, x: Float[Tensor, "batch in_channels height width"], *shifts: Float[Tensor, "batch _ 1 1"]
    ) -> Float[Tensor, "batch out rows columns"]:
        """Apply it to an input and its shifts, those in the order of their numbers."""
        g = self.geometry
        top, left, bottom, right = g.padding
        padded = F.pad(x, (left, right, top, bottom))
        y = F.conv2d(padded, self.weight, self.bias, g.stride, 0, g.dilation, g.groups)
        for number, shift in zip(sorted(self.carries), shifts, strict=True):
            y = y + F.linear(shift.flatten(1), self.carries[number])[:, :, None, None]
        return y

    def then(self, second: Convolution) -> Convolution:
        """This convolution and then ``second`` as one; see :func:`compose`."""
        return compose(self, second)

    def beside(self, other: Convolution) -> Convolution:
        """The sum of this convolution and ``other`` on the same input as one; see :func:`add`."""
        return add(self, other)

    def to(self, there: torch.dtype | torch.device) -> Convolution:
        """The same with weights of another type, or on another device."""
        carries = {number: matrix.to(there) for number, matrix in self.carries.items()}
        return replace(self, weight=self.weight.to(there), bias=self.bias.to(there), carries=carries)

    def outputs(self, some: slice) -> Convolution:
        """The convolution that makes some outputs of each group alone; its weights are views, where they can be."""

        def taken(of_all: Tensor) -> Tensor:
            return of_all.reshape(self.geometry.groups, -1, *of_all.shape[1:])[:, some].flatten(0, 1)

        weight, carries = taken(self.weight), {number: taken(matrix) for number, matrix in self.carries.items()}
        return Convolution(replace(self.geometry, out_channels=len(weight)), weight, taken(self.bias), carries)

    def shifted(self, number: int) -> Convolution:
        """This convolution with a shift added to its result."""
        weight, channels = self.weight, self.geometry.out_channels
        unchanged = torch.eye(channels, dtype=weight.dtype, device=weight.device)
        return replace(self, carries={**self.carries, number: unchanged})


def identity(channels: int, dtype: torch.dtype = torch.float64, device: torch.device = CPU) -> Convolution:
    """The convolution that returns its input: 1x1, depthwise."""
    geometry = Geometry(channels, channels, (1, 1), groups=channels)
    weight = torch.ones(channels, 1, 1, 1, dtype=dtype, device=device)
    return Convolution(geometry, weight, weight.new_zeros(channels))


def selecting(
    channels: int, some: range, dtype: torch.dtype = torch.float64, device: torch.device = CPU
) -> Convolution:
    """The convolution that puts its inputs in the place of some channels, and zeros in that of all others: 1x1."""
    weight = torch.eye(channels, dtype=dtype, device=device)[:, some.start : some.stop, None, None]
    return Convolution(Geometry(len(some), channels, (1, 1)), weight, weight.new_zeros(channels))


def averaging(
    pool: nn.AvgPool2d, channels: int, dtype: torch.dtype = torch.float64, device: torch.device = CPU
) -> Convolution:
    """The convolution that an average pooling is: depthwise, all weights the same.

    Requires: every window is divided by the same number (``network/pooling.py``).
    """
    geometry = pooling_geometry(pool, channels)
    weight = torch.full((channels, 1, *geometry.kernel), pooling_weight(pool), dtype=dtype, device=device)
    return Convolution(geometry, weight, weight.new_zeros(channels))


def from_modules(
    conv: nn.Conv2d, norm: nn.Module | None = None, dtype: torch.dtype = torch.float64, *, shift: int | None = None
) -> Convolution:
    """A module's convolution, with the shift of this number, and with its batch norm, in evaluation mode, folded in."""
    weight = conv.weight.detach().to(dtype)
    bias = weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().to(dtype)
    result = Convolution(geometry_of(conv), weight, bias)
    result = result if shift is None else result.shifted(shift)
    return result if norm is None else normalised(result, norm)


def normalised(convolution: Convolution, norm: nn.Module) -> Convolution:
    """A convolution and then a batch norm, in evaluation mode, as one.

    With ``g = gamma / sqrt(var + eps)`` of the norm, the weights become ``g W`` and the bias ``g (b - mean) + beta``.
    """
    dtype = convolution.weight.dtype
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.to(dtype) + norm.eps).rsqrt()
    shift = -norm.running_mean.to(dtype) * scale
    if norm.weight is not None:
        gamma, beta = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)
        scale, shift = scale * gamma, shift * gamma + beta
    weight = convolution.weight * scale[:, None, None, None]
    carries = {number: matrix * scale[:, None] for number, matrix in convolution.carries.items()}
    return Convolution(convolution.geometry, weight, convolution.bias * scale + shift, carries)


def to_module(convolution: Convolution, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A trainable module that computes a convolution; one that is narrowed as layers are, whatever its padding."""
    g = convolution.geometry
    top, left, bottom, right = g.padding
    even = (top, left) == (bottom, right)
    padding = (top, left) if even else (0, 0)
    module = nn.Conv2d(
        g.in_channels,
        g.out_channels,
        g.kernel,
        g.stride,
        padding,
        g.dilation,
        g.groups,
        device="meta",  # nothing is drawn at random, so the global generator stays where it is
    )
    module.weight = nn.Parameter(
        convolution.weight.to(dtype, copy=True).contiguous()
    )  # training leaves the value alone
    module.bias = nn.Parameter(convolution.bias.to(dtype, copy=True))
    padded = module if even else PaddedConv2d(module, g.padding)
    if not convolution.carries:
        return padded
    return Shifted(padded, [convolution.carries[number].to(dtype) for number in sorted(convolution.carries)])


def compose(first: Convolution, second: Convolution) -> Convolution:
    """``second`` after ``first`` as one convolution.

    Tap ``u`` of the second kernel at output pixel ``o`` reads the first one's output at ``o s2 + u d2 - p2``, so that
    together with its tap ``k`` it reads input pixel ``o s1 s2 + (u d2 s1 + k d1) - (p2 s1 + p1)``: the taps of the
    composition are the full convolution of the two kernels, the first with its taps ``d1`` apart, the second with
    its taps ``d2 s1`` apart. That is what a transposed convolution does to an image, with this stride and dilation.
    """
    geometry = first.geometry.then(second.geometry)
    # The second one keeps its own groups: written out as a dense kernel, a depthwise one would be nearly all zeros.
    g, mid = second.geometry.groups, first.geometry.out_channels
    inner, outer = regroup(first, geometry.groups).weight, second.weight
    # For all groups at once, some inputs of theirs at a time: batch = inputs of a group, channels = mid channels.
    images, kernels = inner.transpose(0, 1), outer.reshape(g, -1, *outer.shape[1:]).transpose(1, 2).flatten(0, 1)
    (sh, sw), (dh, dw) = first.geometry.stride, second.geometry.dilation
    taps = inner.new_empty(geometry.out_channels, len(images), *geometry.kernel)
    at_once, apart = max(1, NUMBERS_AT_ONCE // taps[:, 0].numel()), (sh * dh, sw * dw)
    for start in range(0, len(images), at_once):
        some = images[start : start + at_once]
        made = F.conv_transpose2d(some, kernels, stride=first.geometry.dilation, dilation=apart, groups=g)
        taps[:, start : start + at_once] = made.transpose(0, 1)
    summed = outer.sum((2, 3)).reshape(g, -1, mid // g)  # what is the same at every pixel

    def passed(values: Tensor) -> Tensor:
        return (summed @ values.reshape(g, mid // g, -1)).flatten(0, 1)

    carries = _added({number: passed(matrix) for number, matrix in first.carries.items()}, second.carries)
    bias = second.bias + passed(first.bias)[:, 0]
    return Convolution(geometry, taps, bias, carries)


def add(a: Convolution, b: Convolution) -> Convolution:
    """The sum of two convolutions of the same input as one: both kernels on one grid, where their padding lines up."""
    geometry = a.geometry.beside(b.geometry)
    return Convolution(geometry, embed(a, geometry) + embed(b, geometry), a.bias + b.bias, _added(a.carries, b.carries))


def embed(convolution: Convolution, geometry: Geometry) -> Float[Tensor, "out in_per_group height width"]:
    """The weights of a convolution in the larger frame of another geometry, which computes the same there.

    Raises:
        ValueError: The frame is not larger, or its groups do not hold the convolution's.
    """
    weight = _stretch(regroup(convolution, geometry.groups).weight, convolution.geometry.dilation)
    top = geometry.padding[0] - convolution.geometry.padding[0]
    left = geometry.padding[1] - convolution.geometry.padding[1]
    bottom, right = geometry.kernel[0] - weight.shape[2] - top, geometry.kernel[1] - weight.shape[3] - left
    if min(top, left, bottom, right) < 0:
        raise ValueError(f"{convolution.geometry} does not fit in {geometry}")
    return F.pad(weight, (left, right, top, bottom))


def cropped(convolution: Convolution, size: Pair) -> Convolution:
    """A convolution without the taps that meet nothing but padding on an input of this height and width."""
    geometry = convolution.geometry.cropped(size)
    top, left = (
        convolution.geometry.padding[0] - geometry.padding[0],
        convolution.geometry.padding[1] - geometry.padding[1],
    )
    height, width = geometry.kernel
    weight = convolution.weight[:, :, top : top + height, left : left + width]
    return replace(convolution, geometry=geometry, weight=weight.contiguous())


def regroup(convolution: Convolution, groups: int) -> Convolution:
    """The same convolution with fewer groups: zeros where channels were apart.

    Raises:
        ValueError: ``groups`` does not divide the groups that it has.
    """
    old = convolution.geometry.groups
    if old == groups:
        return convolution
    if old % groups:
        raise ValueError(f"{old} groups cannot become {groups}")
    joined, (out, per_group, height, width) = old // groups, convolution.weight.shape
    blocks = convolution.weight.reshape(groups, joined, out // old, per_group, height, width)
    weight = blocks.new_zeros(groups, joined, out // old, joined, per_group, height, width)
    diagonal = torch.arange(joined, device=weight.device)
    weight[:, diagonal, :, diagonal] = blocks.transpose(0, 1)
    return Convolution(
        replace(convolution.geometry, groups=groups),
        weight.reshape(out, joined * per_group, height, width),
        convolution.bias,
        convolution.carries,
    )


def divided_into(convolution: Convolution, groups: int) -> Convolution:
    """The same dense convolution with more groups, where its weights between them are zeros.

    Raises:
        ValueError: They are not, or it has groups already.
    """
    if groups == convolution.geometry.groups:
        return convolution
    out, inputs, height, width = convolution.weight.shape
    blocks = convolution.weight.reshape(groups, out // groups, groups, inputs // groups, height, width)
    own = torch.arange(groups, device=blocks.device)
    weight = blocks[own, :, own].reshape(out, inputs // groups, height, width)
    divided = replace(convolution, geometry=replace(convolution.geometry, groups=groups), weight=weight)
    if convolution.geometry.groups != 1 or not torch.equal(regroup(divided, 1).weight, convolution.weight):
        raise ValueError(f"{convolution.geometry} does not fall into {groups} groups")
    return divided


def _added(a: Mapping[int, Tensor], b: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """The sum of what two maps carry; a shift that only one of them knows is carried by that one alone."""
    return {**a, **{number: a[number] + matrix if number in a else matrix for number, matrix in b.items()}}


def _stretch(weight: Tensor, factor: tuple[int, int]) -> Tensor:
    """Put ``factor - 1`` zeros between taps."""
    if factor == (1, 1):
        return weight
    out, per_group, height, width = weight.shape
    stretched = weight.new_zeros(out, per_group, (height - 1) * factor[0] + 1, (width - 1) * factor[1] + 1)
    stretched[:, :, :: factor[0], :: factor[1]] = weight
    return stretched
