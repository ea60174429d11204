from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.network.inputs import (
    INPUT,
    Input,
    as_inputs,
    as_tuple,
    batched_shapes,
    examples,
    joined,
    resized,
    samples_in,
)

shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
inputs = st.lists(
    st.builds(Input, st.sampled_from("abcdef"), shapes, st.none() | st.integers(1, 9)), min_size=1, max_size=4
)


@given(inputs, st.integers(1, 4))
def test_examples_are_of_the_shape_and_kind(given_: list[Input], batch: int) -> None:
    values = examples(given_, batch)
    assert [tuple(value.shape) for value in values] == [(batch, *item.shape) for item in given_]
    for item, value in zip(given_, values, strict=True):
        assert value.is_floating_point() == (item.below is None)
        assert item.below is None or (value.min() >= 0 and value.max() < item.below)
    assert all(torch.equal(one, other) for one, other in zip(values, examples(given_, batch), strict=True))


@given(inputs)
def test_inputs_stay_what_they_are(given_: list[Input]) -> None:
    assert as_inputs(given_) == tuple(given_)
    first, *others = resized(given_, (7, 7))
    assert first.shape == (7, 7) and first.name == given_[0].name and others == given_[1:]


@given(shapes)
def test_a_shape_is_one_input_of_real_numbers(shape: tuple[int, ...]) -> None:
    assert as_inputs(shape) == (Input(INPUT, shape),)


def test_shapes_by_name() -> None:
    assert batched_shapes((Input("x", (3, 8, 8)), Input("t", (), 9)), 5) == {"x": (5, 3, 8, 8), "t": (5,)}


@given(inputs, st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_batches_are_joined_input_by_input(given_: list[Input], sizes: list[int]) -> None:
    batches = [examples(given_, size) for size in sizes]
    assert [samples_in(batch) for batch in batches] == sizes
    whole = joined(batches)
    assert samples_in(whole) == sum(sizes) and len(whole) == len(given_)
    for values, parts in zip(whole, zip(*batches, strict=True), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(values.split(sizes), parts, strict=True))
        assert values.dtype == parts[0].dtype


def test_one_tensor_is_one_input() -> None:
    x = torch.zeros(2)
    assert as_tuple(x) == (x,) and as_tuple((x, x)) == (x, x)
    assert samples_in(torch.zeros(5, 3)) == samples_in((torch.zeros(5, 3), torch.zeros(5))) == 5
