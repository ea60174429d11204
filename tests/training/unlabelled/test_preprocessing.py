"""Preparing images: every step does what it says, and what cannot be is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trt_layermerge.errors import TaskError, UsageError
from trt_layermerge.training.unlabelled.prepared_image import prepared
from trt_layermerge.training.unlabelled.preprocessing import Preprocessing


def image(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (height, width, channels), dtype=torch.uint8, generator=generator)


@given(
    st.integers(3, 30), st.integers(3, 30), st.sampled_from([1, 3]), st.none() | st.tuples(st.integers(3, 20)),
    st.sampled_from(["rgb", "bgr", "grey"]), st.sampled_from(["chw", "hwc"]),
)  # fmt: skip
def test_the_size_is_what_was_said_before(
    height: int, width: int, channels: int, resize: tuple[int] | None, colours: Any, layout: Any
) -> None:
    steps = Preprocessing(resize=resize, crop=(3, 2), channels=colours, layout=layout)
    made = prepared(image(height, width, channels), steps)
    shape = (1 if colours == "grey" else 3, *steps.size_of(height, width))
    assert made.shape == (shape if layout == "chw" else (*shape[1:], shape[0]))
    assert made.dtype == torch.float32 and made.isfinite().all() and made.min() >= 0 and made.max() <= 1


def test_values_are_scaled_then_normalised() -> None:
    given = image(2, 2)
    steps = Preprocessing(mean=(0.1, 0.2, 0.3), std=(2.0, 4.0, 5.0))
    expected = (given.permute(2, 0, 1) / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [2.0, 4.0, 5.0]
    ).view(3, 1, 1)
    torch.testing.assert_close(prepared(given, steps), expected)
    torch.testing.assert_close(prepared(given, Preprocessing(scale=1.0)), given.permute(2, 0, 1).float())


def test_colours() -> None:
    red = torch.zeros(1, 1, 3, dtype=torch.uint8)
    red[..., 0] = 255
    assert prepared(red, Preprocessing()).flatten().tolist() == [1, 0, 0]
    assert prepared(red, Preprocessing(channels="bgr")).flatten().tolist() == [0, 0, 1]
    assert prepared(red, Preprocessing(channels="grey")).flatten().tolist() == pytest.approx([0.299])
    assert prepared(red[..., :1], Preprocessing()).flatten().tolist() == [1, 1, 1]


def test_the_middle_is_taken() -> None:
    given = torch.arange(25, dtype=torch.uint8).view(5, 5, 1)
    made = prepared(given, Preprocessing(crop=(3,), scale=1.0, channels="grey"))
    assert made[0].tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]


def test_resizing_a_plain_image_leaves_it_plain() -> None:
    made = prepared(torch.full((7, 11, 3), 51, dtype=torch.uint8), Preprocessing(resize=(4, 9)))
    assert made.shape == (3, 4, 9)
    torch.testing.assert_close(made, torch.full((3, 4, 9), 0.2))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"resize": (3, 4, 5)}, "--resize"), ({"crop": (0,)}, "--crop"), ({"mean": (0.5, 0.5)}, "--mean has 2 numbers"),
        ({"std": (0.0,)}, "--std must be above 0"), ({"scale": 0.0}, "--scale"), ({"scale": float("nan")}, "--scale"),
        ({"mean": (float("inf"),)}, "--mean"), ({"channels": "rgba"}, "--channels is 'rgba'"),
        ({"layout": "nchw"}, "--layout"), ({"channels": "grey", "mean": (1.0, 1.0, 1.0)}, "for each channel: 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Preprocessing(**wrong)


def test_other_channels_are_refused() -> None:
    with pytest.raises(TaskError, match=r"an image is \[4, 4, 2\]"):
        prepared(image(4, 4, 2), Preprocessing())
    with pytest.raises(ValueError, match="is 4x4 there, and 5x5 are to be cropped"):
        prepared(image(4, 4), Preprocessing(crop=(5,)))
