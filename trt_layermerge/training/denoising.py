"""Denoising as a task: a network that takes an image full of noise and a time step, and says what the noise is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from trt_layermerge.errors import TaskError
from trt_layermerge.training.seeds import mixed_seed
from trt_layermerge.training.task import Classification, Labelled

Noisy = tuple[tuple[Tensor, Tensor], Tensor]
"""Noisy images ``[batch, channels, height, width]`` with their time steps ``[batch]``, and the noise in them."""


@dataclass(frozen=True)
class Denoising:
    """Noise prediction of DDPM (Ho, Jain and Abbeel, arXiv 2006.11239, equation 14).

    With ``a_t`` the product of ``1 - beta`` up to step t, an image x becomes ``sqrt(a_t) x + sqrt(1 - a_t) e``, and the
    loss is the mean square between e, normal, and what the network says it is. Time steps and noise of training follow
    from seed, epoch and step; elsewhere they are the same at every call.

    Args:
        images: Where the images come from, in -1..1; their labels are not looked at.
        timesteps: Number of time steps.
        first_beta: Variance that the first step adds.
        last_beta: That of the last; between them it grows in a line.
        drawn: Which time steps there are, from the first up to the second, without it: of a network that denoises in
            a part of the steps alone. ``None`` draws all.

    Raises:
        TaskError: There is no such step.
    """

    images: Classification
    timesteps: int = 1000
    first_beta: float = 1e-4
    last_beta: float = 0.02
    drawn: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse a part of the steps that is none."""
        first, end = self._drawn
        if not 0 <= first < end <= self.timesteps:
            raise TaskError(
                f"task {self.name!r}: there are no time steps from {first} up to {end}",
                hint=f"drawn is the first one and the one behind the last, of {self.timesteps}",
            )

    @property
    def _drawn(self) -> tuple[int, int]:
        return (0, self.timesteps) if self.drawn is None else self.drawn

    @property
    def name(self) -> str:
        """``denoising`` and the images' name; and which time steps, if not all."""
        part = "" if self.drawn is None else f", steps {self.drawn[0]} to {self.drawn[1] - 1}"
        return f"denoising {self.images.name}{part}"

    @property
    def metric_name(self) -> str:
        """The mean square error with its sign turned: higher is better."""
        return "minus MSE"

    @property
    def steps_per_epoch(self) -> int:
        """As the images have it."""
        return self.images.steps_per_epoch

    @cached_property
    def signal(self) -> Tensor:
        """a_t, the share of the image's variance that is left, ``[timesteps]``."""
        betas = torch.linspace(self.first_beta, self.last_beta, self.timesteps, dtype=torch.float64)
        return (1 - betas).cumprod(0).float()

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Noisy]:
        """The images of one epoch with noise that depends on ``(seed, epoch, step)`` alone."""
        batches = self.images.training_batches(seed=seed, epoch=epoch, first_step=first_step)
        rank, _ = self.images.share
        for step, (images, _) in enumerate(batches, first_step):
            yield self._noisy(images, mixed_seed(seed, epoch, step, rank, self.timesteps))

    def calibration_batches(self) -> Iterator[Noisy]:
        """The calibration images, always with the same noise."""
        return self._same(self.images.calibration_batches(), 1)

    def held_out_batches(self) -> Iterator[Noisy]:
        """The held-out images, always with the same noise."""
        return self._same(self.images.held_out_batches(), 2)

    def test_batches(self) -> Iterator[Noisy]:
        """The test images, always with the same noise."""
        return self._same(self.images.test_batches(), 3)

    def shared(self, rank: int, size: int) -> Denoising:
        """The same task, whose training batches hold every ``size``-th image from ``rank`` on."""
        return replace(self, images=self.images.shared(rank, size))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean square of what is missed of the noise."""
        return F.mse_loss(output, target)

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        """Minus that, for each sample: higher is better."""
        return -(output - target).square().flatten(1).mean(1)

    def _same(self, batches: Iterator[Labelled], part: int) -> Iterator[Noisy]:
        for number, (images, _) in enumerate(batches):
            yield self._noisy(images, mixed_seed(part, number))

    def _noisy(self, images: Tensor, seed: int) -> Noisy:
        generator = torch.Generator().manual_seed(seed)
        times = torch.randint(*self._drawn, (len(images),), generator=generator)
        noise = torch.randn(images.shape, generator=generator)
        left = self.signal[times].view(-1, *[1] * (images.ndim - 1))
        return (left.sqrt() * images + (1 - left).sqrt() * noise, times), noise
