"""Distances: 0 where outputs are the same, whatever their scale; chosen by what outputs are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trt_layermerge.errors import ExitCode, ModelError, UsageError
from trt_layermerge.training.unlabelled.distances import KINDS, NormalisedError, choose_distances

SHAPES = st.sampled_from([(5, 4), (5, 3, 6), (5, 3, 4, 4), (5,)])


def drawn(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def probabilities(shape: tuple[int, ...], dimension: int = 1) -> Tensor:
    return drawn(shape, 0).softmax(dimension)


@given(st.sampled_from(sorted(KINDS)), SHAPES, st.integers(0, 99))
def test_what_is_the_same_is_at_no_distance_and_agrees(kind: str, shape: tuple[int, ...], seed: int) -> None:
    original = drawn(shape, seed)
    if kind == "probabilities" and len(shape) > 1:
        original = original.softmax(1)
    try:
        distance = KINDS[kind].of(original)
    except ValueError:
        assert len(shape) < 2, "all others have classes in dimension 1"
        return
    other = original.flip(0) if len(shape) == 1 else original.roll(1, 1)
    assert distance(original, original).tolist() == pytest.approx([0.0] * 5, abs=1e-6)
    assert distance.agreement(original, original).tolist() == [1.0] * 5
    assert distance(other, original).shape == distance.agreement(other, original).shape == (5,)
    assert (distance(other, original) > -1e-6).all() and distance(other, original).sum() > 1e-4


@given(SHAPES, st.floats(1e-3, 1e3), st.integers(0, 99))
def test_the_scale_of_an_output_is_of_no_consequence(shape: tuple[int, ...], scale: float, seed: int) -> None:
    original, other = drawn(shape, seed), drawn(shape, seed + 1)
    once, again = (NormalisedError.of(original * by)(other * by, original * by) for by in (1.0, scale))
    assert again.tolist() == pytest.approx(once.tolist(), rel=1e-3)


@given(SHAPES, st.integers(0, 99))
def test_a_constant_misses_all_of_the_variance(shape: tuple[int, ...], seed: int) -> None:
    original = drawn(shape, seed)
    distance = NormalisedError.of(original)
    dims = [dim for dim in range(len(shape)) if dim != distance.dimension] if len(shape) > 1 else [0]
    assert float(distance(original.mean(dims, keepdim=True).expand(shape), original).mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("dimension", [1, 2])
def test_boxes_and_scores_of_one_tensor_count_by_their_own_scales(dimension: int) -> None:
    boxes, scores = 300 * drawn((8, 4, 50), 0), 1e-2 * drawn((8, 6, 50), 1)
    original = torch.cat([boxes, scores], 1)
    changed = [torch.cat(parts, 1) for parts in ([boxes, scores.flip(0)], [boxes.flip(0), scores])]
    if dimension == 2:
        original, *changed = (values.transpose(1, 2).contiguous() for values in (original, *changed))
    distance = NormalisedError.of(original)
    assert distance.dimension == dimension
    of_scores, of_boxes = (float(distance(one, original).mean()) for one in changed)
    assert of_scores / 6 == pytest.approx(of_boxes / 4, rel=0.3)


def test_a_channel_that_hardly_changes_does_not_count_for_more_than_the_others() -> None:
    original = drawn((8, 3, 5, 5), 0)
    original[:, 0] *= 1e-9
    other = original + 0.1
    assert float(NormalisedError.of(original)(other, original).mean()) < 1e3


@pytest.mark.parametrize("original", [torch.zeros(6, 3), torch.full((6, 3), 5.0)])
def test_an_output_that_is_constant_can_be_compared(original: Tensor) -> None:
    distance = NormalisedError.of(original)
    assert distance(original, original).sum() == 0 and torch.isfinite(distance(original + 1, original)).all()


@pytest.mark.parametrize(
    ("outputs", "kinds"),
    [
        ({"output": drawn((6, 10), 0)}, ["logits"]),
        ({"output": probabilities((6, 10))}, ["probabilities"]),
        ({"output": probabilities((6, 7, 30), 2)}, ["probabilities"]),
        ({"output": probabilities((6, 5, 4, 2), 3)}, ["probabilities"]),
        ({"output": drawn((6, 1), 0)}, ["error"]),
        ({"output": drawn((6, 10, 4, 4), 0)}, ["error"]),
        ({"output": drawn((6,), 0)}, ["error"]),
        ({"class_logits": drawn((6, 10), 0), "boxes": drawn((6, 4), 0)}, ["logits", "error"]),
        ({"prob": probabilities((6, 2)), "boxes": drawn((6, 4), 0), "map": drawn((6, 1, 8, 8), 0)},
         ["probabilities", "error", "error"]),
    ],
)  # fmt: skip
def test_what_outputs_are_decides(outputs: dict[str, Tensor], kinds: list[str]) -> None:
    assert [str(distance) for distance in choose_distances(outputs, {}).values()] == kinds


def test_what_the_user_says_comes_first() -> None:
    outputs = {"output": drawn((6, 10), 0)}
    assert str(choose_distances(outputs, {"output": "error"})["output"]) == "error"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"ouput": "error"}, "no output 'ouput'.*\n.*did you mean 'output'"),
        ({"output": "cosine"}, "no distance 'cosine'.*\n.*logits, probabilities, error"),
        ({"output": "probabilities"}, r"output 'output', \[batch, 10\], is no probabilities: .*sum to one"),
    ],
)
def test_what_cannot_be_is_told(told: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choose_distances({"output": drawn((6, 10), 0)}, told)


def test_an_original_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ModelError, match="output 'map' of the original is inf or NaN") as caught:
        choose_distances({"map": torch.full((6, 2), torch.nan)}, {})
    assert caught.value.exit_code == ExitCode.BAD_INPUT


def test_softened_logits_are_compared_as_hinton_has_it() -> None:
    original, other = drawn((5, 4), 0), drawn((5, 4), 1)
    distance = KINDS["logits"].of(original)
    p, q = (original / 3).softmax(1), (other / 3).softmax(1)
    expected = 9 * (p * (p / q).log()).sum(1)
    assert distance.softened(3)(other, original).tolist() == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize("shape", [(6, 4), (3, 5, 2, 2), (3, 7, 5)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_softened_probabilities_are_compared_as_the_logits_behind_them(
    shape: tuple[int, ...], temperature: float
) -> None:
    original, other = 3 * drawn(shape, 0), 3 * drawn(shape, 1)
    both = [values.softmax(1) for values in (other, original)]
    softened = KINDS["probabilities"].of(both[1]).softened(temperature)
    expected = KINDS["logits"].of(original).softened(temperature)(other, original)
    torch.testing.assert_close(softened(*both), expected, rtol=1e-3, atol=1e-4)
