"""Training on a GPU as ``training/loop.py`` does it, a step being one CUDA graph: small networks wait for launches.

All that is random is drawn before the first step, so it is other random numbers than the loop's; what is minimised, the
schedule and the optimiser are the same. Without CUDA a step runs as it is written.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from trt_layermerge.network.device import move
from trt_layermerge.training.decoupling import fade
from trt_layermerge.training.distillation import distillation_loss
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification
from trt_layermerge.training.unlabelled.inner_states import inner_error

SHIFT = 2
"""Pixels that images are shifted by at most, as the example's task has it."""


class GraphedTraining:
    """Training of a student by labels and its teacher, if it has one; both are left on the device, in evaluation mode.

    Args:
        student: Returns logits, or a tuple of them and inner states; what fades in it is gone from the first step on.
        teacher: Returns the same of the original; ``None`` where labels are all there is to learn from.
        task: Images ``[n, channels, height, width]`` and labels, as tensors; what it has a method ``enlarged`` for is
            enlarged after its augmentation.
        recipe: Steps, rate, momentum, decay, longest gradient, average, distillation, temperature and seed are heard.
        device: Where to.
        inner: Weight of the mean error of inner states.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        task: Classification,
        recipe: Recipe,
        device: torch.device,
        inner: float = 0.0,
    ) -> None:
        for module in (student, teacher):
            if module is not None:
                move(module.train(module is student), device)
        fade(student, 1.0)
        self.student, self.teacher, self.recipe, self.inner = student, teacher, recipe, inner
        self.device, self.steps = device, recipe.steps_of(task.steps_per_epoch)
        images, labels = task.train.tensors  # type: ignore[attr-defined]
        self.enlarged = getattr(task, "enlarged", None)
        chosen, self.black = torch.tensor(task._split[0]), float(images.min())
        self.images, self.labels = images[chosen].to(device), labels[chosen].to(device)
        self._draw(task.batch_size, task.steps_per_epoch)
        self.weights = [one for one in student.parameters() if one.requires_grad]
        self.decays = [recipe.weight_decay if one.ndim > 1 else 0.0 for one in self.weights]
        self.momenta = [torch.zeros_like(one) for one in self.weights]
        self.state = [value for value in student.state_dict().values() if value.is_floating_point()]
        self.average = [value.clone() for value in self.state]

    def _draw(self, batch: int, epoch: int) -> None:
        """What each step sees, and how: ``[steps, batch]``; and its rate and how much of the average stays."""
        chance, shape = torch.Generator().manual_seed(self.recipe.seed), (self.steps, batch)
        orders = [torch.randperm(len(self.images), generator=chance) for _ in range(-(-self.steps // epoch))]
        which = torch.cat([order[: epoch * batch].view(epoch, batch) for order in orders])[: self.steps]
        drawn = [torch.randint(0, below, shape, generator=chance) for below in (2, 2 * SHIFT + 1, 2 * SHIFT + 1)]
        self.drawn = torch.stack([which, *drawn]).to(self.device)
        rates = [self.recipe.lr_at(step, self.steps) for step in range(self.steps)]
        new = [1 - self.recipe.average_at(step) for step in range(self.steps)]
        self.rates, self.new = torch.tensor(rates, device=self.device), torch.tensor(new, device=self.device)
        self.number = torch.zeros(1, dtype=torch.long, device=self.device)

    def run(self) -> None:
        """All steps; the student ends with the average of its weights, if the recipe has one."""
        step = self._captured() if self.device.type == "cuda" else self._step
        for _ in range(self.steps):
            step()
        if self.recipe.average:
            with torch.no_grad():
                torch._foreach_copy_(self.state, self.average)
        self.student.eval()

    def _captured(self) -> Callable[[], None]:
        changed = [*self.student.state_dict().values(), *self.momenta, *self.average, self.number]
        before = [value.clone() for value in changed]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        with torch.no_grad():
            for value, was in zip(changed, before, strict=True):
                value.copy_(was)
        return graph.replay

    def _step(self) -> None:
        loss = self._loss(*self._batch())
        slopes = torch.autograd.grad(loss, self.weights, allow_unused=True)
        with torch.no_grad():
            self._descend(slopes)
            self.number += 1

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """What labels say, what the teacher says, and the mean error of inner states, each as the recipe weighs it."""
        if self.teacher is None:
            return functional.cross_entropy(_tuple(self.student(images))[0], labels)
        with torch.no_grad():
            taught = _tuple(self.teacher(images))
        made, share = _tuple(self.student(images)), self.recipe.distillation
        loss = (1 - share) * functional.cross_entropy(made[0], labels)
        loss = loss + share * distillation_loss(made[0], taught[0], self.recipe.temperature)
        if self.inner and len(made) > 1:
            errors = [inner_error(one, other) for one, other in zip(made[1:], taught[1:], strict=True)]
            loss = loss + self.inner * torch.stack(errors).mean()
        return loss

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Images, each flipped with probability one half and shifted, and labels."""
        which, flipped, down, right = self.drawn.index_select(1, self.number).squeeze(1)
        images, height, width = self.images[which], *self.images.shape[2:]
        images = torch.where(flipped.view(-1, 1, 1, 1) > 0, images.flip(3), images)
        padded = functional.pad(images, (SHIFT,) * 4, value=self.black)
        rows = down[:, None] + torch.arange(height, device=self.device)
        columns = right[:, None] + torch.arange(width, device=self.device)
        every = torch.arange(len(images), device=self.device)
        shifted = padded[every[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return shifted if self.enlarged is None else self.enlarged(shifted), self.labels[which]

    def _descend(self, slopes: tuple[Tensor | None, ...]) -> None:
        """Nesterov's step, as ``torch.optim.SGD`` has it."""
        if self.recipe.clip_norm is not None:
            length = torch.stack(torch._foreach_norm([one for one in slopes if one is not None])).norm()
            share = (self.recipe.clip_norm / (length + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
            slopes = tuple(one if one is None else one * share for one in slopes)
        found = zip(slopes, self.decays, self.weights, strict=True)
        pulled = [decay * one if slope is None else slope + decay * one for slope, decay, one in found]
        torch._foreach_mul_(self.momenta, self.recipe.momentum)
        torch._foreach_add_(self.momenta, pulled)
        ahead = torch._foreach_add(pulled, self.momenta, alpha=self.recipe.momentum)
        torch._foreach_mul_(ahead, -self.rates.index_select(0, self.number).squeeze())
        torch._foreach_add_(self.weights, ahead)
        if self.recipe.average:
            new = self.new.index_select(0, self.number).squeeze()
            for kept, value in zip(self.average, self.state, strict=True):
                kept.add_(new * (value - kept))


def _tuple(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)
