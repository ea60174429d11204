from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.errors import TaskError
from trt_layermerge.training.evaluate import Score, evaluate, final_accuracy, in_mode, score
from trt_layermerge.training.task import Classification

MakeModel = Callable[[], nn.Module]


def test_a_score_is_what_one_big_batch_gives(task: Classification, make_model: MakeModel) -> None:
    model = make_model().eval()
    images, labels = (torch.cat(parts) for parts in zip(*task.held_out_batches(), strict=True))
    with torch.no_grad():
        logits = model(images)
    found = evaluate(model, task.held_out_batches(), task)
    assert found.samples == 13  # a batch of 8 and one of 5, which must not weigh the same
    assert found.loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert found.accuracy == (logits.argmax(1) == labels).double().mean().item()


def test_outputs_at_hand_score_the_same(task: Classification, make_model: MakeModel) -> None:
    model = make_model().eval()
    with torch.no_grad():
        outputs = [(model(images), labels) for images, labels in task.test_batches()]
    assert score(outputs, task) == evaluate(model, task.test_batches(), task)


def test_nothing_of_the_model_changes(task: Classification, make_model: MakeModel) -> None:
    model = make_model()
    model[1].eval()  # type: ignore[operator]  # a frozen norm inside a model that trains
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    evaluate(model, task.test_batches(), task)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_tensors_that_a_task_makes_meanwhile_can_be_trained_on(task: Classification, make_model: MakeModel) -> None:
    kept: list[Tensor] = []

    def batches() -> object:
        for images, labels in task.test_batches():
            kept.append(images * 2)
            yield images, labels

    evaluate(make_model(), batches(), task)  # type: ignore[arg-type]
    assert not any(tensor.is_inference() for tensor in kept)


def test_no_data_is_an_error(task: Classification, make_model: MakeModel) -> None:
    with pytest.raises(TaskError, match="no data"):
        evaluate(make_model(), [], task)


@pytest.mark.parametrize(
    ("turned", "words"), [(Tensor.mean, r"\[\] for"), (lambda numbers: numbers * 1j, r"complex numbers \[20\] for")]
)
def test_a_metric_must_be_one_number_a_sample(
    task: Classification, make_model: MakeModel, turned: Callable[[Tensor], Tensor], words: str
) -> None:
    @dataclass(frozen=True)
    class Other(Classification):
        def metric(self, output: Tensor, target: Tensor) -> Tensor:
            return turned(super().metric(output, target))

    other = Other("other", task.train, task.test, held_out=1)
    with pytest.raises(TaskError, match=f"metric returns {words} a batch of 20"):
        evaluate(make_model(), other.test_batches(), other)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_final_accuracy_is_a_number(task: Classification, value: float) -> None:
    @dataclass(frozen=True)
    class Odd(Classification):
        def metric(self, output: Tensor, target: Tensor) -> Tensor:
            return torch.where(target == target[0], value, super().metric(output, target))

    outputs = [(torch.randn(len(labels), 4), labels) for _, labels in task.test_batches()]
    assert final_accuracy(outputs, task) == score(outputs, task).accuracy
    with pytest.raises(TaskError, match=rf"the metric is {value} on the test data"):
        final_accuracy(outputs, Odd("odd", task.train, task.test, held_out=1))


def test_modes_come_back_when_something_raises(make_model: MakeModel) -> None:
    model = make_model()
    with pytest.raises(ValueError, match="stop"), in_mode(model, training=False):
        assert not model.training
        raise ValueError("stop")
    assert model.training


def test_a_score_is_a_value() -> None:
    assert Score(0.5, 0.75, 4) == Score(loss=0.5, accuracy=0.75, samples=4)
