from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from trt_layermerge.errors import ExitCode, ModelError, VerificationError
from trt_layermerge.precision.casting import in_half
from trt_layermerge.precision.half import LARGEST_HALF, MARGIN, WEIGHT_ERROR, to_half
from trt_layermerge.precision.observe import tensor_differences
from trt_layermerge.precision.quantise import to_int8
from trt_layermerge.precision.rounding import rounded
from trt_layermerge.precision.tolerance import OUTPUT_TOLERANCE
from trt_layermerge.precision.weights import half_loss, int8_loss

ONES = np.ones((4, 4, 1, 1))


def chain(write: Any, *scales: float) -> Any:
    """Convolutions ``layer0``, ``layer1``, ... with ReLU between, that multiply the sum over channels by a scale."""
    nodes, weights, tensor = [], {}, "input"
    for number, scale in enumerate(scales):
        last = number == len(scales) - 1
        weights[f"layer{number}.weight"] = scale * ONES
        nodes.append(("Conv", [tensor, f"layer{number}.weight"], "output" if last else f"t{number}"))
        if not last:
            nodes.append(("Relu", [f"t{number}"], f"r{number}"))
        tensor = f"r{number}"
    return write(nodes, weights)


def test_an_ordinary_network_is_half_and_close(residual: Any, images: Any) -> None:
    found = to_half(residual(), images())
    assert found.full == () and 0 < found.error < OUTPUT_TOLERANCE["fp16"]
    assert [layer.name for layer in found.layers] == ["stem", "a", "b", "last"]
    assert all(0 < layer.error < 1e-2 and layer.flushed == 0 for layer in found.layers)
    assert all(0 < (layer.weights or 0) < 5e-4 for layer in found.layers)
    assert found.model == in_half(residual())


@pytest.mark.parametrize("convert", [to_half, to_int8])
def test_of_several_outputs_the_worst_counts(convert: Any, write: Any, images: Any) -> None:
    model = chain(write, 0.3, 0.3, 0.3)
    alone = convert(model, images()).error
    model.graph.output.insert(0, helper.make_tensor_value_info("t0", TensorProto.FLOAT, ["batch", 4, 6, 6]))
    both = convert(model, images())
    assert both.error >= alone > both.layers[0].error
    assert [value.name for value in both.model.graph.output] == ["t0", "output"]


def test_values_beyond_halves_stay_in_full_and_are_named(write: Any, images: Any) -> None:
    found = to_half(chain(write, 0.3, 30000, 1e-5, 0.3), images())
    assert found.full == ("layer1", "layer2"), "the one that writes them, and the one that reads them"
    assert found.layers[1].largest > LARGEST_HALF / MARGIN and found.error < 2e-3
    assert [node.op_type for node in found.model.graph.node].count("Cast") == 4


def test_values_below_halves_stay_in_full(write: Any, images: Any) -> None:
    found = to_half(chain(write, 0.3, 1e-3, 1e-3, 1e6, 0.3), images())
    assert set(found.full) == {"layer2", "layer3"} and found.error < 2e-3


def test_weights_that_halves_lose_stay_in_full(write: Any, images: Any) -> None:
    found = to_half(chain(write, 0.3, 2e-9, 0.3), images(scale=1e4))
    assert "layer1" in found.full and found.layers[1].flushed == 1 and (found.layers[1].weights or 0) > WEIGHT_ERROR


def test_weights_that_overflow_stay_in_full(write: Any, images: Any) -> None:
    found = to_half(chain(write, 0.3, 1e5, 1e-5), images(scale=1e-3))
    assert "layer1" in found.full and found.layers[1].weights is None and found.error < 5e-3


def test_error_that_accumulates_is_refused_and_the_layer_named(write: Any, images: Any) -> None:
    weights = {"up.weight": 0.1 * ONES, "up.bias": np.full(4, 4000.0), "down.weight": ONES / 4}
    weights["down.bias"] = np.full(4, -4000.0)
    nodes = [
        ("Conv", ["input", "up.weight", "up.bias"], "a"),
        ("Conv", ["a", "down.weight", "down.bias"], "output"),
    ]
    with pytest.raises(VerificationError, match=r"in fp16, .* grows most in down \(") as caught:
        to_half(write(nodes, weights), images())
    assert caught.value.exit_code is ExitCode.PROOF_FAILED and "--precision fp32" in str(caught.value)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_network_that_is_broken_in_full_is_told_so(write: Any, images: Any, bad: float) -> None:
    model = write(
        [("Conv", ["input", "a.weight"], "a"), ("Conv", ["a", "b.weight"], "output")],
        {"a.weight": ONES, "b.weight": bad * ONES},
    )
    with pytest.raises(ModelError, match=r"in FP32, computes inf or NaN .* first in b$|first in b\n"):
        to_half(model, images())


def test_a_network_without_anything_for_halves_is_refused(write: Any, images: Any) -> None:
    with pytest.raises(ModelError, match="no layer of the network can compute in FP16"):
        to_half(chain(write, 1e5, 1e-5), images())


def with_times(batches: Any) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(2)
    return [batch | {"times": random.integers(0, 1000, (len(batch["input"]), 1, 1, 1))} for batch in batches]


def test_the_angles_of_a_time_step_stay_in_full(timed: Any, images: Any) -> None:
    """In halves, an angle of 600 is off by up to a quarter, and its sine by as much."""
    model, batches = timed(), with_times(images())
    found = to_half(model, batches)
    assert found.full == () and found.error < 2e-3, "the layers behind them are in halves all the same"
    everywhere = tensor_differences(rounded(in_half(model)), model, ["output"], batches)["output"]
    assert everywhere.error > OUTPUT_TOLERANCE["fp16"]


def test_layers_that_an_angle_comes_from_are_in_halves(write: Any, images: Any) -> None:
    nodes = [("Conv", ["input", "a.weight"], "a"), ("Sin", ["a"], "s"), ("Conv", ["s", "b.weight"], "output")]
    assert to_half(write(nodes, {"a.weight": ONES / 4, "b.weight": ONES}), images()).full == ()


def test_whole_numbers_are_fed_as_they_are(timed: Any, images: Any) -> None:
    """And where they lie beyond halves, no layer has to stay in FP32 for it."""
    batches = [batch | {"times": 100 * batch["times"]} for batch in with_times(images())]
    assert to_half(timed(), batches).full == ()
    found = to_int8(timed(), batches)
    assert 0 < found.error < OUTPUT_TOLERANCE["int8"]
    assert [layer.name for layer in found.layers] == ["sine", "cosine", "image"]


@given(st.lists(st.floats(-60000, 60000, width=32), min_size=1, max_size=20))
def test_what_weights_lose_is_what_numpy_says(values: list[float]) -> None:
    weights = np.array(values, np.float32)
    loss = half_loss(weights)
    assert 0 <= loss.flushed <= 1
    if (np.abs(weights) >= 2**-14).all():
        assert loss.error <= 2**-11 and loss.flushed == 0


@given(st.integers(1, 5), st.floats(1e-20, 1e20), st.integers(0, 99))
def test_int8_loses_as_much_of_small_weights_as_of_large_ones(channels: int, scale: float, seed: int) -> None:
    weights = np.random.default_rng(seed).standard_normal((channels, 3, 3, 3))
    loss, scaled = int8_loss(weights), int8_loss(scale * weights)
    assert 0 < loss.error < 0.02 and scaled.error == pytest.approx(loss.error, rel=1e-6)


def test_weights_of_nothing_lose_nothing() -> None:
    assert half_loss(np.zeros(3, np.float32)).error == int8_loss(np.zeros((2, 1, 1, 1))).error == 0
