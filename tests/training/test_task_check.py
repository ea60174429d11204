from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch

from trt_layermerge.errors import TaskError
from trt_layermerge.network.inputs import Input
from trt_layermerge.training.task import Classification, Task
from trt_layermerge.training.task_check import (
    DataSet,
    check_task,
    first_batch,
    require_batch,
    require_steps,
    sample_shape,
)


@dataclass(frozen=True)
class Calibrated(Classification):
    """Calibration batches as given."""

    batches: tuple[Any, ...] = ()

    def calibration_batches(self) -> Iterator[Any]:
        for batch in self.batches:
            if isinstance(batch, Exception):
                raise batch
            yield batch


def test_a_good_task_passes(task: Classification) -> None:
    check_task(task, (2, 4, 4))


def test_a_batch_may_hold_several_inputs(task: Classification) -> None:
    image, times, target = torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.long), torch.zeros(2)
    two = Calibrated("two", task.train, task.test, held_out=1, batches=(((image, times), target),))
    check_task(two, (Input("image", (3, 4, 4)), Input("time", (), below=9)))
    assert sample_shape(two) == (3, 4, 4)
    given, _ = require_batch(((image, times), target), two, "it")
    assert given == (image, times)
    assert require_batch((image, target), two, "it")[0] == (image,)
    for wrong in (((), target), ((image, [0]), target), ((image, torch.zeros(3)), target)):
        with pytest.raises(TaskError, match="'two': it yields"):
            require_batch(wrong, two, "it")


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (None, "batches of 1 input; the network takes 2: image, time"),
        (torch.zeros(2, 1, dtype=torch.long), r"'time' of shape \[2, 1\]; the network takes \[batch\]"),
        (torch.zeros(2), "'time' of torch.float32 from 0.0 to 0.0; the network takes torch.int64 from 0 to 8"),
        (torch.zeros(2, dtype=torch.int32), "'time' of torch.int32 from 0 to 0; the network takes torch.int64"),
        (torch.tensor([0, 9]), "'time' of torch.int64 from 0 to 9; the network takes torch.int64 from 0 to 8"),
        (torch.tensor([-1, 3]), "'time' of torch.int64 from -1 to 3"),
    ],
)
def test_every_input_is_looked_at(task: Classification, times: Any, words: str) -> None:
    image, target = torch.zeros(2, 3, 4, 4), torch.zeros(2)
    batch = (image if times is None else (image, times), target)
    bad = Calibrated("bad", task.train, task.test, held_out=1, batches=(batch,))
    with pytest.raises(TaskError, match=f"'bad'.*{words}") as caught:
        check_task(bad, (Input("image", (3, 4, 4)), Input("time", (), below=9)))
    assert caught.value.exit_code == 3


def test_both_shapes_are_named(task: Classification) -> None:
    with pytest.raises(TaskError, match=r"\[8, 2, 4, 4\].*\[batch, 3, 224, 224\]"):
        check_task(task, (3, 224, 224))


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ((), "nothing"),
        ((torch.zeros(2, 1),), "a Tensor"),
        (((torch.zeros(2, 1), [0, 1]),), "a tuple of .Tensor, list."),
        (({"image": 1},), "a dict"),
        (((torch.zeros(2, 1), torch.zeros(3)),), r"\[2, 1\] with targets \[3\]"),
        (((torch.zeros(2, 1, dtype=torch.uint8), torch.zeros(2)),), "torch.uint8"),
        (((torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2)),), "torch.float64"),
        ((RuntimeError("disk gone"),), "RuntimeError: disk gone"),
    ],
)
def test_what_is_wrong_is_said(task: Classification, batches: tuple[Any, ...], words: str) -> None:
    bad = Calibrated("bad", task.train, task.test, held_out=1, batches=batches)
    with pytest.raises(TaskError, match=f"'bad'.*{words}") as caught:
        check_task(bad, (1,))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("data", ["training_batches", "calibration_batches", "held_out_batches"])
def test_every_data_set_can_be_looked_at(task: Classification, data: DataSet) -> None:
    (inputs,), target = first_batch(task, data)
    assert inputs.shape[1:] == (2, 4, 4) and len(inputs) == len(target) > 0
    with pytest.raises(TaskError, match=rf"{data} yields inputs of shape \[8, 2, 4, 4\]"):
        check_task(task, (3, 4, 4), (data,))


@pytest.mark.parametrize(("steps", "words"), [(0, "0 steps"), (-1, "nothing to train on"), (2.5, "a whole number")])
def test_an_epoch_has_a_number_of_steps(steps: Any, words: str) -> None:
    class Stepping:
        name, steps_per_epoch = "stepping", steps

    with pytest.raises(TaskError, match=f"'stepping'.*{words}"):
        require_steps(cast(Task, Stepping()))
