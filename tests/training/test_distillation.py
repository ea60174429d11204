from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_layermerge.errors import UsageError
from trt_layermerge.training.distillation import distillation_loss

SEEDS, TEMPERATURES = st.integers(0, 2**32), st.floats(0.5, 20)


def logits(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, database=None)
@given(seed=SEEDS, temperature=TEMPERATURES)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(seed: int, temperature: float) -> None:
    student = logits(seed, 4, 5).requires_grad_()
    loss = distillation_loss(student, student.detach().clone(), temperature)
    (gradient,) = torch.autograd.grad(loss, student)
    assert abs(loss.item()) < 1e-12 and gradient.abs().max() < 1e-12


@settings(deadline=None, database=None)
@given(seed=SEEDS, temperature=TEMPERATURES)
def test_it_is_the_divergence_of_the_softened_distributions(seed: int, temperature: float) -> None:
    student, teacher = logits(seed, 4, 5), logits(seed + 1, 4, 5)
    p, q = torch.softmax(teacher / temperature, 1), torch.softmax(student / temperature, 1)
    by_hand = temperature**2 * (p * (p / q).log()).sum(1).mean()
    assert distillation_loss(student, teacher, temperature).item() == pytest.approx(by_hand.item())
    assert by_hand >= 0


def test_every_position_of_a_dense_output_counts_the_same() -> None:
    student, teacher = logits(0, 2, 5, 3), logits(1, 2, 5, 3)
    each = [distillation_loss(student[:, :, i], teacher[:, :, i], 4.0) for i in range(3)]
    assert torch.allclose(distillation_loss(student, teacher, 4.0), torch.stack(each).mean())


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 3, 3)])
def test_one_output_is_no_logits(shape: tuple[int, ...]) -> None:
    """A softmax of one number is 1: there would be nothing to learn from the teacher, and nobody would be told."""
    with pytest.raises(UsageError, match="no logits"):
        distillation_loss(logits(0, *shape), logits(1, *shape), 4.0)
