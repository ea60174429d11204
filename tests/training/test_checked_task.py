from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.errors import TaskError
from trt_layermerge.network.inputs import Input
from trt_layermerge.network.network import trace
from trt_layermerge.training.checked_task import CheckedTask
from trt_layermerge.training.task import Classification, Regression, Shareable, metric_name

GIVEN = (Input("input", (2, 4, 4)),)
DATA = ["training_batches", "calibration_batches", "held_out_batches", "test_batches"]


@dataclass(frozen=True)
class Changing(Classification):
    """Whose third batch of every data set is made another one."""

    made: Callable[[Tensor, Tensor], Any] = lambda images, labels: (images, labels)

    def _turned(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[Any]:
        for number, (images, labels) in enumerate(batches):
            yield self.made(images, labels) if number == 2 else (images, labels)

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Any]:
        return self._turned(super().training_batches(seed=seed, epoch=epoch, first_step=first_step))

    def calibration_batches(self) -> Iterator[Any]:
        return self._turned(super().calibration_batches())

    def held_out_batches(self) -> Iterator[Any]:
        return self._turned(super().held_out_batches())

    def test_batches(self) -> Iterator[Any]:
        return self._turned(super().test_batches())


def changing(task: Classification, made: Callable[[Tensor, Tensor], Any]) -> CheckedTask:
    return CheckedTask(Changing("odd", task.train, task.train, 4, 16, 16, made=made), GIVEN)


def read(task: CheckedTask, data: str) -> list[Any]:
    return list(task.training_batches(seed=0, epoch=0) if data == "training_batches" else getattr(task, data)())


def ended(*_: Any) -> Any:
    raise SystemExit(0)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda x, y: (x.to(torch.uint8), y), "torch.uint8; a network takes real numbers, torch.float32"),
        (lambda x, y: (x.double(), y), "torch.float64; a network takes"),
        (lambda x, y: (x.half(), y), "torch.float16; a network takes"),
        (lambda x, y: (x * float("nan"), y), "inputs of what is not finite: nan or infinity"),
        (lambda x, y: (x + float("inf"), y), "inputs of what is not finite"),
        (lambda x, y: (x[:0], y[:0]), r"inputs \[0, 2, 4, 4\], of no samples"),
        (lambda x, y: (x[:, :1], y), r"shape \[4, 1, 4, 4\]; the network takes \[batch, 2, 4, 4\]"),
        (lambda x, y: (x[..., :3], y), r"shape \[4, 2, 4, 3\]; the network takes"),
        (lambda x, y: (x[0], y), r"inputs \[2, 4, 4\] with targets \[4\]"),
        (lambda x, y: (x.to("meta"), y), "inputs that are a meta tensor, which has no values"),
        (lambda x, y: (x, y.to("meta")), "targets that are a meta tensor"),
        (lambda x, y: (x.to_sparse(), y), "inputs that are sparse"),
        (lambda x, y: ((x, x), y), "batches of 2 inputs; the network takes 1"),
        (lambda x, y: (x.sum(), y.sum()), r"inputs \[\] with targets \[\]"),
        (lambda x, y: x, "a Tensor"),
        (lambda x, y: None, "a NoneType"),
        (lambda x, y: (x, y[:3]), r"with targets \[3\]"),
        (ended, "it ends the process, with SystemExit: 0"),
    ],
)
def test_a_batch_that_turns_wrong_later_is_named(
    task: Classification, data: str, made: Callable[[Tensor, Tensor], Any], words: str
) -> None:
    with pytest.raises(TaskError, match=f"task 'odd': batch 3 of {data}.* {words}") as caught:
        read(changing(task, made), data)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize(("wrong", "span"), [(4, "0 to 4"), (-1, "-1 to 3")])
def test_labels_of_no_class_are_named_where_they_come(task: Classification, data: str, wrong: int, span: str) -> None:
    network = trace("net", nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 4, 4))

    def labels(*values: int) -> CheckedTask:
        made = Changing("odd", task.train, task.train, 4, 16, 16, made=lambda x, y: (x, torch.tensor(values)))
        return CheckedTask(made).for_network(network, torch.device("cpu"))

    read(labels(0, 3, -100, 1), data)  # the third stands for no label
    if data == "calibration_batches":  # fits need none
        read(labels(0, 3, wrong, 1), data)
        return
    words = f"task 'odd': batch 3 of {data} yields labels from {span}; the network has 4 classes, 0 to 3"
    with pytest.raises(TaskError, match=words):
        read(labels(0, 3, wrong, 1), data)


OF_NO_CLASSES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "another type": (lambda y: y.int(), r"labels \[4\] of torch.int32; they must be \[batch\] of torch.int64"),
    "real numbers": (lambda y: y.float(), r"labels \[4\] of torch.float32"),
    "decisions": (lambda y: y > 0, r"labels \[4\] of torch.bool"),
    "a dimension more": (lambda y: y[:, None], r"labels \[4, 1\] of torch.int64"),
    "one-hot": (lambda y: nn.functional.one_hot(y, 4), r"labels \[4, 4\]"),
    "shares": (lambda y: nn.functional.one_hot(y, 4).float(), r"labels \[4, 4\] of torch.float32"),
    "none": (lambda y: y * 0 - 100, "no labels: all are -100"),
    "two": (lambda y: (y, y), "2 targets; labels are one tensor"),
}


@pytest.mark.parametrize(("change", "words"), OF_NO_CLASSES.values(), ids=OF_NO_CLASSES.keys())
def test_labels_that_are_no_classes_are_told_with_their_batch(
    task: Classification, change: Callable[[Tensor], Any], words: str
) -> None:
    network = trace("net", nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 4, 4))
    made = Changing("odd", task.train, task.train, 4, 16, 16, made=lambda x, y: (x, change(torch.tensor([0, 1, 2, 3]))))
    with pytest.raises(TaskError, match=f"batch 3 of held_out_batches yields {words}"):
        read(CheckedTask(made).for_network(network, torch.device("cpu")), "held_out_batches")


def test_shares_of_classes_are_labels_for_a_metric_of_ones_own(task: Classification) -> None:
    class Mixed(Changing):
        def metric(self, output: Tensor, target: Tensor) -> Tensor:
            return (output.argmax(1) == target.argmax(1)).float()

    network = trace("net", nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 4, 4))
    mixed = Mixed("odd", task.train, task.train, 4, 16, 16, made=lambda x, y: (x, torch.eye(4)))
    assert read(CheckedTask(mixed).for_network(network, torch.device("cpu")), "held_out_batches")


def test_tensors_of_inference_mode_and_of_graphs_can_be_trained_on(task: Classification) -> None:
    weights = nn.Parameter(torch.ones(2, 4, 4))

    def inferred(images: Tensor, labels: Tensor) -> Any:
        with torch.inference_mode():
            return images + 1, labels.clone()

    for made in (inferred, lambda images, labels: (images * weights, labels)):
        ((inputs,), target) = read(changing(task, made), "training_batches")[2]
        (inputs * weights).sum().backward()
        assert not inputs.requires_grad and not target.is_inference()
        inputs.numpy()


def test_a_buffer_that_is_handed_out_again_and_again_is_copied(task: Classification) -> None:
    images, labels = torch.zeros(4, 2, 4, 4), torch.zeros(4, dtype=torch.long)

    class Reusing(Classification):
        def calibration_batches(self) -> Iterator[Any]:
            for number in range(3):
                yield images.fill_(number), labels.fill_(number)

        held_out_batches = calibration_batches

    reusing = CheckedTask(Reusing("reusing", task.train, task.test, held_out=4), GIVEN)
    for data in ("calibration_batches", "held_out_batches"):
        assert [(float(x.mean()), int(y[0])) for (x,), y in read(reusing, data)] == [(0, 0), (1, 1), (2, 2)]


def test_it_is_what_the_task_is(task: Classification) -> None:
    checked = CheckedTask(task, GIVEN)
    assert (checked.name, checked.steps_per_epoch) == (task.name, task.steps_per_epoch)
    assert isinstance(checked, Shareable) and not isinstance(checked, Regression)
    whole, half = (next(iter(one.training_batches(seed=0, epoch=0))) for one in (checked, checked.shared(1, 2)))
    assert torch.equal(half[1], whole[1][1::2])

    class Measured:
        metric_name = "PSNR"

        def __getattr__(self, name: str) -> Any:
            if name == "shared":
                raise AttributeError(name)
            return getattr(task, name)

    measured: Any = Measured()
    assert metric_name(CheckedTask(measured)) == "PSNR" and not isinstance(CheckedTask(measured), Shareable)


@pytest.mark.parametrize("part", ["name", "steps_per_epoch", "metric_name", "loss", "metric", "test_batches"])
def test_each_part_that_ends_the_process_is_told(task: Classification, part: str) -> None:
    class Ending:
        def __getattr__(self, name: str) -> Any:
            return ended() if name == part else getattr(task, name)

    def ask(ending: Any) -> None:
        checked = CheckedTask(ending)
        assert checked.steps_per_epoch
        checked.loss(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))
        checked.metric(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))
        list(checked.test_batches())

    with pytest.raises(TaskError, match=rf"{part}.*SystemExit: 0 \({__file__}, line \d+\)"):
        ask(Ending())


def test_a_name_can_be_written_and_read_again(task: Classification) -> None:
    name = CheckedTask(replace(task, name="one\n\x1b[2J\ud800\0" + "x" * 10**6)).name
    assert name.isprintable() and name.encode() and len(name) < 10_000
