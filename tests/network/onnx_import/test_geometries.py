"""Convolutions, pooling and resizing compute what ONNX Runtime computes, whatever their geometry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.network.onnx_import.models import assert_same, floats, one

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
geometries = st.fixed_dictionaries(
    {
        "kernel_shape": pairs,
        "strides": st.tuples(st.integers(1, 2), st.integers(1, 3)),
        "pads": st.tuples(*[st.integers(0, 2)] * 4),
        "dilations": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "auto_pad": st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
    }
)


def settled(geometry: dict[str, Any]) -> dict[str, Any]:
    """Without the padding that ``auto_pad`` stands for; it knows no dilation in ONNX Runtime."""
    if geometry["auto_pad"] == "NOTSET":
        return geometry
    return {**{key: value for key, value in geometry.items() if key != "pads"}, "dilations": (1, 1)}


@given(geometries, st.sampled_from([1, 2, 4]), st.booleans())
def test_any_convolution(geometry: dict[str, Any], groups: int, bias: bool) -> None:
    geometry = settled(geometry)
    weight = floats(8, 4 // groups, *geometry["kernel_shape"])
    more = [floats(8)] if bias else []
    assert_same(one("Conv", weight, *more, shape=("batch", 4, 9, 10), group=groups, **geometry))


def pooled_by_runtime(geometry: dict[str, Any], ceil: bool) -> bool:
    """Whether ONNX Runtime takes a pooling: no window may lie in padding alone."""
    kernel, strides = geometry["kernel_shape"], geometry["strides"]
    if geometry["auto_pad"] == "NOTSET":
        return all(side < kernel[index % 2] for index, side in enumerate(geometry["pads"]))
    return not ceil and all(k >= s for k, s in zip(kernel, strides, strict=True))


@given(geometries, st.booleans())
def test_any_max_pooling(geometry: dict[str, Any], ceil: bool) -> None:
    assume(pooled_by_runtime(geometry, ceil))
    assert_same(one("MaxPool", **settled(geometry), ceil_mode=int(ceil)))


@given(geometries, st.booleans(), st.booleans())
def test_any_average_pooling(geometry: dict[str, Any], ceil: bool, count: bool) -> None:
    assume(pooled_by_runtime(geometry, ceil))
    geometry = {**settled(geometry), "dilations": (1, 1)}
    assert_same(one("AveragePool", **geometry, ceil_mode=int(ceil), count_include_pad=int(count), opset=19))


PLACES = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
PLACE = "coordinate_transformation_mode"
ROUNDINGS = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


def on_an_edge(place: str, size: int, to: int) -> bool:
    """Whether some output pixel lies between two input pixels but for the rounding of a scale that is no float."""
    out = np.arange(to)
    if place == "align_corners":
        ratio, at = (to - 1) / max(size - 1, 1), out * (size - 1) / max(to - 1, 1)
    else:
        ratio = to / size
        at = out / ratio if place == "asymmetric" else (out + 0.5) / ratio - 0.5
    return bool(float(np.float32(ratio)) != ratio and (np.abs(2 * at - np.rint(2 * at)) < 1e-5).any())


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(st.sampled_from(PLACES), st.sampled_from(ROUNDINGS), st.tuples(st.integers(1, 21), st.integers(1, 21)))
def test_nearest_neighbours_to_any_size(place: str, rounding: str, size: tuple[int, int]) -> None:
    # There two runtimes differ as well: each rounds in its own way.
    assume(not any(on_an_edge(place, *axis) for axis in zip((8, 10), size, strict=True)))
    sizes = np.array([2, 3, *size], np.int64)
    attributes = {"coordinate_transformation_mode": place, "nearest_mode": rounding}
    assert_same(one("Resize", None, None, sizes, mode="nearest", **attributes))


@given(st.sampled_from(["half_pixel", "align_corners"]), st.sampled_from(["linear", "cubic"]), st.integers(2, 21))
def test_smooth_resizing_to_any_size(place: str, mode: str, size: int) -> None:
    sizes = np.array([2, 3, size, 13], np.int64)
    assert_same(one("Resize", None, None, sizes, mode=mode, coordinate_transformation_mode=place))


@given(
    st.sampled_from([*PLACES, "half_pixel_symmetric"]), st.sampled_from(["linear", "cubic"]), st.integers(2, 21),
    st.integers(2, 21), st.booleans(), st.sampled_from([-0.75, -0.5]),
)  # fmt: skip
def test_smooth_resizing_whatever_pytorch_has(
    place: str, mode: str, height: int, width: int, outside: bool, coefficient: float
) -> None:
    more = {"exclude_outside": int(outside), "cubic_coeff_a": coefficient} if mode == "cubic" else {}
    sizes = np.array([2, 3, height, width], np.int64)
    assert_same(one("Resize", None, None, sizes, mode=mode, opset=19, **{PLACE: place}, **more))


@pytest.mark.parametrize(("mode", "scale"), [("linear", 0.5), ("linear", 0.3), ("cubic", 0.5), ("linear", 2.0)])
def test_resizing_without_aliases(mode: str, scale: float) -> None:
    scales = np.array([1, 1, scale, scale], np.float32)
    assert_same(one("Resize", None, scales, mode=mode, antialias=1, shape=("batch", 3, 20, 40)))


transposed = st.fixed_dictionaries(
    {
        "strides": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "dilations": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "group": st.sampled_from([1, 2]),
    }
)
paddings = st.one_of(
    st.fixed_dictionaries({"pads": st.tuples(*[st.integers(0, 2)] * 4)}),
    st.fixed_dictionaries({"auto_pad": st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"])}),
    st.fixed_dictionaries({"output_shape": st.tuples(st.integers(11, 13), st.integers(11, 13))}),
)


@given(transposed, paddings)
def test_any_transposed_convolution(geometry: dict[str, Any], padding: dict[str, Any]) -> None:
    if "output_shape" in padding:
        geometry = {**geometry, "strides": (2, 2), "dilations": (1, 1)}
    weight = floats(4, 4 // geometry["group"], 3, 3)
    assert_same(one("ConvTranspose", weight, floats(4), shape=("batch", 4, 6, 6), **geometry, **padding))
