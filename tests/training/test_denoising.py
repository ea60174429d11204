from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.errors import TaskError
from trt_layermerge.training.denoising import Denoising
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification, Regression, metric_name


@pytest.fixture
def denoising(task: Classification) -> Denoising:
    return Denoising(task)


def same(a: list, b: list) -> bool:
    return all(
        torch.equal(x, u) and torch.equal(t, v) and torch.equal(y, w)
        for ((x, t), y), ((u, v), w) in zip(a, b, strict=True)
    )


def test_the_schedule_is_that_of_the_paper(denoising: Denoising) -> None:
    """Nearly all of the image is there at first, and nearly nothing at the end (arXiv 2006.11239, section 4)."""
    assert denoising.signal[0] == pytest.approx(1 - 1e-4)
    assert denoising.signal[1] == pytest.approx((1 - 1e-4) * (1 - 1e-4 - (0.02 - 1e-4) / 999))
    assert 4.0e-5 < denoising.signal[-1] < 4.1e-5
    assert (denoising.signal.diff() < 0).all()


def test_it_says_what_its_metric_is_and_classification_does_not(denoising: Denoising, task: Classification) -> None:
    assert metric_name(denoising) == "minus MSE" and metric_name(task) is None
    assert isinstance(denoising, Regression) and not isinstance(task, Regression)


def test_noise_follows_from_seed_epoch_and_step_alone(denoising: Denoising) -> None:
    whole = list(denoising.training_batches(seed=1, epoch=2))
    assert len(whole) == denoising.steps_per_epoch == 5
    torch.rand(3)
    assert same(whole[2:], list(denoising.training_batches(seed=1, epoch=2, first_step=2)))
    others = [list(denoising.training_batches(seed=s, epoch=e)) for s, e in ((2, 2), (1, 3))]
    assert not any(torch.equal(whole[0][1], other[0][1]) for other in others)
    assert not torch.equal(whole[0][1], whole[1][1])
    for part in (denoising.calibration_batches, denoising.held_out_batches, denoising.test_batches):
        assert same(list(part()), list(part()))


def test_members_of_a_team_see_other_noise(denoising: Denoising) -> None:
    first, second = (next(denoising.shared(rank, 2).training_batches(seed=0, epoch=0)) for rank in (0, 1))
    assert first[1].shape == second[1].shape == (4, 2, 4, 4)
    assert not torch.equal(first[1], second[1])


def test_noise_is_normal_and_every_time_step_may_come(denoising: Denoising) -> None:
    batches = [batch for epoch in range(40) for batch in denoising.training_batches(seed=0, epoch=epoch)]
    noise = torch.cat([target for _, target in batches])
    times = torch.cat([times for (_, times), _ in batches])
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    assert times.min() < 10 and times.max() > 989 and not times.is_floating_point()


def test_loss_and_metric_are_of_the_noise(denoising: Denoising) -> None:
    output, target = torch.zeros(3, 2, 4, 4), torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1).expand(3, 2, 4, 4)
    assert float(denoising.loss(output, target)) == pytest.approx(5 / 3)
    assert denoising.metric(output, target).tolist() == [0.0, -1.0, -4.0]


class Denoiser(nn.Module):
    """Two inputs, as DDPM's network has them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.time = nn.Conv2d(2, 2, 3, padding=1), nn.Embedding(1000, 2)

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.conv(sample) + self.time(timestep)[:, :, None, None] * sample


def test_a_denoiser_learns_with_the_papers_recipe_made_short(denoising: Denoising, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Denoiser()
    before = evaluate(model, denoising.held_out_batches(), denoising)
    recipe = Recipe(
        steps=60, optimizer="adam", lr=0.02, schedule="constant", average=0.9999, clip_norm=1.0, weight_decay=0.0
    )
    fine_tune(model, denoising, recipe, checkpoint=tmp_path / "c")
    after = evaluate(model, denoising.held_out_batches(), denoising)
    assert after.loss < before.loss and after.accuracy > before.accuracy
    assert after.accuracy == pytest.approx(-after.loss, rel=1e-5)


def test_a_part_of_the_time_steps(denoising: Denoising) -> None:
    """All of the part and nothing else, with the same images and its own name; the noise is of the whole schedule."""
    part = replace(denoising, drawn=(900, 903))
    batches = [batch for epoch in range(9) for batch in part.training_batches(seed=0, epoch=epoch)]
    batches += [*part.calibration_batches(), *part.held_out_batches(), *part.test_batches()]
    assert set(torch.cat([times for (_, times), _ in batches]).tolist()) == {900, 901, 902}
    assert torch.equal(part.signal, denoising.signal)
    assert part.name == f"{denoising.name}, steps 900 to 902"


@pytest.mark.parametrize("drawn", [(5, 5), (-1, 5), (0, 1001)])
def test_steps_that_are_none_are_refused(denoising: Denoising, drawn: tuple[int, int]) -> None:
    with pytest.raises(TaskError, match=f"from {drawn[0]} up to {drawn[1]}"):
        replace(denoising, drawn=drawn)
