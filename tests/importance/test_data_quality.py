from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from trt_layermerge.errors import ModelError, TaskError
from trt_layermerge.importance.data_quality import data_cautions, label_cautions, norm_cautions
from trt_layermerge.network.inputs import Input
from trt_layermerge.network.network import trace
from trt_layermerge.training.task import Classification

Made = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Given(Classification):
    """Calibration images made others."""

    made: Made = torch.clone

    def calibration_batches(self) -> Any:
        for images, labels in super().calibration_batches():
            yield self.made(images), labels


def cautions(made: Made, shape: tuple[int, ...] = (3, 8, 8)) -> tuple[str, ...]:
    images = torch.rand(192, *shape, generator=torch.Generator().manual_seed(0))
    data, given = TensorDataset(images, torch.arange(192) % 2), (Input("input", shape),)
    return data_cautions(Given("it", data, data, batch_size=16, held_out=64, calibration=64, made=made), given)


@pytest.mark.parametrize("made", [torch.clone, lambda x: x.flip(-1), lambda x: x + 0.1, lambda x: 1.5 * x, torch.sqrt])
def test_data_that_are_alike_need_no_caution(made: Made) -> None:
    assert cautions(made) == ()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (torch.zeros_like, "calibration data of task 'it' are constant: none of the first 64 has two different"),
        (lambda x: x.mean((1, 2, 3), keepdim=True).expand_as(x), "are constant"),
        (lambda x: torch.linspace(0, 1, 192).view(1, 3, 8, 8).expand_as(x), "are all the same: there is one image, 64"),
    ],
)
def test_data_that_nothing_can_be_solved_on_are_an_error(made: Made, words: str) -> None:
    with pytest.raises(TaskError, match=words) as caught:
        cautions(made)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda x: x[:4].repeat(4, 1, 1, 1), "repeat themselves: of the first 64, 16 are different"),
        (lambda x: 255 * x, r"in channel . they are 12\d \+- 7.*; are both normalised alike"),
        (lambda x: x - 2, "are unlike the held-out data"),
        (lambda x: x / 100, "are unlike the held-out data"),
        (lambda x: torch.cat([x[:, :2], x[:, 2:] + 3], 1), r"in channel 2 they are 3\.5"),
    ],
)
def test_data_that_are_odd_are_said(made: Made, words: str) -> None:
    (caution,) = cautions(made)
    assert re.search(words, caution), caution


@pytest.mark.parametrize(("shape", "axis", "channel"), [((3, 8, 8), 1, 2), ((8, 8, 3), 3, 2), ((400, 1), 2, 0)])
def test_channels_are_found_in_any_layout(shape: tuple[int, ...], axis: int, channel: int) -> None:
    """A click moves a moment of a sound far, and no channel."""

    def clicked(values: Tensor) -> Tensor:
        return values.index_put((torch.tensor(0), *torch.zeros(len(shape), dtype=torch.long)), torch.tensor(10.0))

    def shifted(values: Tensor) -> Tensor:
        return values.index_add(axis, torch.tensor([channel]), torch.full_like(values.narrow(axis, 0, 1), 30.0))

    assert cautions(clicked, shape) == ()
    (caution,) = cautions(shifted, shape)
    assert f"in channel {channel} they are" in caution


def test_numbers_that_are_no_images_are_passed_over() -> None:
    data = TensorDataset(torch.zeros(32, dtype=torch.long), torch.arange(32))
    task = Classification("it", data, data, held_out=8, calibration=8)
    assert data_cautions(task, (Input("time", (), below=9),)) == ()


def labelled(targets: Any) -> tuple[str, ...]:
    """What is said of 64 held-out samples, in batches of 16, with the targets of ``targets``."""
    images = torch.rand(192, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    class Task(Classification):
        def held_out_batches(self) -> Any:
            for first in range(0, 64, 16):
                some = [part[first : first + 16] for part in targets]
                yield images[first : first + 16], some[0] if len(some) == 1 else tuple(some)

    data = TensorDataset(images, torch.arange(192))
    return data_cautions(
        Task("it", data, data, batch_size=16, held_out=64, calibration=64), (Input("input", (3, 8, 8)),)
    )


ALIKE: dict[str, tuple[list[Tensor], str]] = {
    "labels": ([torch.full((64,), 3)], "each of the first 64 is 3:"),
    "labels, and samples without": (
        [torch.full((64,), 3).index_fill(0, torch.arange(20), -100)],
        "each of the first 44 is 3:",
    ),
    "shares of classes": ([torch.tensor([[0.0, 1.0, 0.0]]).repeat(64, 1)], "each of the first 64 has the same:"),
    "masks": ([torch.zeros(64, 8, 8, dtype=torch.long)], "each of the first 64 has the same:"),
    "several": ([torch.zeros(64), torch.ones(64, 2)], "each of the first 64 is 0:"),
}


@pytest.mark.parametrize("name", ALIKE)
def test_targets_that_are_all_alike_are_said(name: str) -> None:
    """A network that is one constant would be the best; nothing was said."""
    targets, words = ALIKE[name]
    (caution,) = labelled(targets)
    assert "targets of the held-out data of task 'it' are all alike" in caution and words in caution


@pytest.mark.parametrize(
    "targets",
    [
        [torch.full((64,), 3).index_fill(0, torch.tensor(63), 2)],
        [torch.zeros(64), torch.arange(64.0)],
        [torch.full((64,), -100)],
        [torch.full((64, 2), torch.nan)],
    ],
    ids=["one differs, in the last batch", "one of several differs", "there are none", "there are none, of numbers"],
)
def test_targets_that_differ_anywhere_need_no_caution(targets: list[Tensor]) -> None:
    assert labelled(targets) == ()


def test_a_network_that_makes_the_same_of_everything_is_said() -> None:
    """Without labels, what it makes are the targets."""
    images = torch.rand(192, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(images, torch.zeros(192, dtype=torch.long))
    task = Classification("it", data, data, batch_size=16, held_out=64, calibration=64)
    object.__setattr__(task, "distances", {"output": None})
    (caution,) = data_cautions(task, (Input("input", (3, 8, 8)),))
    assert "the network makes the same of all held-out samples of task 'it', of the first 64" in caution


def normed(variance: list[float]) -> Any:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    network = trace("net", module, (3, 8, 8))
    (norm,) = (part for part in network.module.modules() if isinstance(part, nn.BatchNorm2d))
    assert norm.running_var is not None
    norm.running_var.copy_(torch.tensor(variance))
    return network


@pytest.mark.parametrize(
    ("variance", "words"),
    [
        ([0.0, 0.0, 1.0, 0.0], ["norm 1 has variance 0 in 3 of 4 channels"]),
        ([0.0, 0.0, 1.0, 1.0], []),
        ([1.0] * 4, []),
    ],
)
def test_norms_that_have_seen_constants_are_said(variance: list[float], words: list[str]) -> None:
    found = norm_cautions(normed(variance))
    assert len(found) == len(words) and all(word in one for word, one in zip(words, found, strict=True))


@pytest.mark.parametrize("variance", [-1.0, float("nan")])
def test_variances_that_are_none_are_an_error(variance: float) -> None:
    with pytest.raises(ModelError, match="norm 1 has variances that are negative or no numbers"):
        norm_cautions(normed([1.0, 1.0, variance, 1.0]))


@pytest.mark.parametrize(("moved", "said"), [(0, False), (1, True), (2, True)])
def test_classes_that_are_numbered_otherwise_are_said(moved: int, said: bool) -> None:
    """The network says which channel is brightest, and each label is that, counted on by ``moved``."""
    images = torch.rand(192, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = (images.mean((2, 3)).argmax(1) + moved) % 3
    conv = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
    network = trace("net", nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 8, 8))
    data = TensorDataset(images, labels)
    found = label_cautions(network, Classification("it", data, data, batch_size=16, held_out=128, calibration=64))
    assert [("on 0 of the first images" in one, "numbered" in one) for one in found] == [(True, True)] * said


def test_of_what_is_no_class_nothing_is_said() -> None:
    network = trace("net", nn.Sequential(nn.Conv2d(3, 3, 1)), (3, 8, 8))
    images = torch.rand(192, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(images, torch.zeros(192, dtype=torch.long))
    assert label_cautions(network, Classification("it", data, data, batch_size=16, held_out=128, calibration=64)) == ()
