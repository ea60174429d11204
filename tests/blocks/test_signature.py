from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.network.geometry import Geometry

natural = st.integers(1, 999)
pads = st.integers(0, 99)
geometries = st.builds(
    Geometry,
    natural,
    natural,
    kernel=st.tuples(natural, natural),
    stride=st.tuples(natural, natural),
    padding=st.tuples(pads, pads, pads, pads),
    dilation=st.tuples(natural, natural),
    groups=natural,
)
activations = st.sampled_from(
    [None, "relu", "relu6", "leaky_relu(0.01)", "elu(1e-05)", "hardtanh(-1,1)", "hardtanh(0,inf)", "gelu"]
)
signatures = st.builds(
    Signature,
    natural,
    st.tuples(natural, natural, natural),
    st.none() | geometries,
    bias=st.booleans(),
    residual=st.booleans(),
    activation=activations,
    precision=st.sampled_from(["fp32", "fp16", "int8"]),
    pooling=st.booleans(),
    shift=st.booleans(),
    group_norm=st.none() | natural,
)


@given(signatures)
def test_a_key_is_read_back_as_what_it_was(signature: Signature) -> None:
    assert Signature.parse(signature.key) == signature
    assert hash(Signature.parse(signature.key)) == hash(signature)


@given(signatures, signatures)
def test_keys_are_equal_where_signatures_are(a: Signature, b: Signature) -> None:
    assert (a.key == b.key) is (a == b)


@given(signatures)
def test_a_bias_needs_a_convolution(signature: Signature) -> None:
    passing = replace(signature, convolution=None, bias=True)
    assert not passing.bias and passing == replace(passing, bias=False)


@given(signatures, st.text(max_size=3))
def test_what_is_no_key_is_refused(signature: Signature, noise: str) -> None:
    for text in (noise, f"{noise} {signature.key}", f"{signature.key} {noise}!"):
        with pytest.raises(ValueError, match="not a signature"):
            Signature.parse(text)


WHOLE = "fp32 n8 16x28x28 conv 16>32 k3x3 s2x2 p1,1,1,1 d1x1 g4 bias gn4"


@pytest.mark.parametrize(
    "part", ["n8", "16x", "x28x", "x28 ", "16>", ">32", "k3", "x3 ", "s2", "x2 ", "d1", "g4 ", "gn4"]
)
@pytest.mark.parametrize("number", ["0", "9" * 10, "9" * 5000])
def test_what_would_divide_by_zero_or_take_for_ever_is_refused(part: str, number: str) -> None:
    Signature.parse(WHOLE)
    digits = "".join(filter(str.isdigit, part))
    with pytest.raises(ValueError, match="not a signature"):
        Signature.parse(WHOLE.replace(part, part.replace(digits, number), 1))


def test_as_it_stands_in_tables() -> None:
    conv = Geometry(16, 32, (3, 3), (2, 2), (1, 1, 1, 1))
    signature = Signature(8, (16, 28, 28), conv, residual=True, activation="relu", precision="fp16")
    assert signature.key == "fp16 n8 16x28x28 conv 16>32 k3x3 s2x2 p1,1,1,1 d1x1 g1 bias add relu"
    assert Signature(1, (4, 8, 8), None, activation="relu").key == "fp32 n1 4x8x8 pass relu"


def test_sizes() -> None:
    signature = Signature(8, (16, 28, 28), Geometry(16, 32, (3, 5), (2, 2), (1, 2, 1, 2), groups=4))
    assert signature.output_shape == (32, 14, 14) and signature.macs == 32 * 14 * 14 * 4 * 15 and not signature.empty
    assert signature.values == 8 * (16 * 28 * 28 + 32 * 14 * 14) + 32 * 4 * 15
    assert replace(signature, residual=True).values - signature.values == 8 * 32 * 14 * 14
    passing = Signature(8, (16, 28, 28), None)
    assert passing.values == 2 * 8 * 16 * 28 * 28
    assert passing.output_shape == (16, 28, 28) and passing.macs == 0 and passing.empty
    assert not replace(passing, residual=True).empty and not replace(passing, activation="relu").empty
