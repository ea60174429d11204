"""Fine-tuning as ``training/loop.py`` does it, a step being one CUDA graph: a fifth of the time for small networks.

For comparing recipes, which needs many trainings; the data is shuffled and augmented by other random numbers than the
loop's, so that rows of tables are made by the loop itself. Without CUDA a step runs as it is written.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from trt_layermerge.network.device import move
from trt_layermerge.training.distillation import distillation_loss
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification
from trt_layermerge.training.unlabelled.inner_states import inner_error

SHIFT = 2
"""Pixels that images are shifted by at most, as the example's task has it."""


class GraphedTraining:
    """Training of a student by labels and its teacher.

    Args:
        student: Returns logits, or a tuple of them and inner states; trained in place, on the device.
        teacher: Returns the same of the original.
        task: Images ``[n, channels, height, width]`` and labels, as tensors.
        recipe: Its steps, rate, momentum, decay, average, distillation and temperature are heard.
        inner: Weight of the mean error of inner states.
        device: Where to.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        task: Classification,
        recipe: Recipe,
        inner: float,
        device: torch.device,
    ) -> None:
        for module in (student, teacher):
            move(module, device)
        self.student, self.teacher, self.recipe, self.inner = student.train(), teacher.eval(), recipe, inner
        images, labels = task.train.tensors  # type: ignore[attr-defined]
        chosen = torch.tensor(task._split[0])
        self.images, self.labels = images[chosen].to(device), labels[chosen].to(device)
        self.batch, self.device, self.steps = task.batch_size, device, recipe.steps_of(task.steps_per_epoch)
        self.random = torch.Generator(device).manual_seed(recipe.seed)
        self.weights = [one for one in student.parameters() if one.requires_grad]
        self.decays = [recipe.weight_decay if one.ndim > 1 else 0.0 for one in self.weights]
        self.momenta = [torch.zeros_like(one) for one in self.weights]
        self.rate = torch.zeros((), device=device)
        shape = (self.batch, *images.shape[1:])
        self.given, self.aims = torch.zeros(shape, device=device), torch.zeros(self.batch, dtype=torch.long).to(device)
        self.black = float(images.min())
        state = {name: value for name, value in student.state_dict().items() if value.is_floating_point()}
        self.state, self.average = list(state.values()), [value.clone() for value in state.values()]

    def run(self) -> None:
        """All steps; the student ends in evaluation mode, with the average of its weights if the recipe has one."""
        step = self._captured() if self.device.type == "cuda" else self._step
        for number in range(self.steps):
            position = number % (len(self.images) // self.batch)
            if position == 0:
                order = torch.randperm(len(self.images), generator=self.random, device=self.device)
            which = order[position * self.batch : (position + 1) * self.batch]
            self.given.copy_(self._augmented(self.images[which]))
            self.aims.copy_(self.labels[which])
            self.rate.fill_(self.recipe.lr_at(number, self.steps))
            step()
            if self.recipe.average:
                torch._foreach_lerp_(self.average, self.state, 1 - self.recipe.average_at(number))
        if self.recipe.average:
            with torch.no_grad():
                torch._foreach_copy_(self.state, self.average)
        self.student.eval()

    def _captured(self) -> Callable[[], None]:
        before = [value.clone() for value in self.student.state_dict().values()]
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
            for value, was in zip(self.student.state_dict().values(), before, strict=True):
                value.copy_(was)
            torch._foreach_zero_(self.momenta)
        return graph.replay

    def _step(self) -> None:
        with torch.no_grad():
            taught = _tuple(self.teacher(self.given))
        made, share = _tuple(self.student(self.given)), self.recipe.distillation
        loss = (1 - share) * functional.cross_entropy(made[0], self.aims, label_smoothing=self.recipe.label_smoothing)
        loss = loss + share * distillation_loss(made[0], taught[0], self.recipe.temperature)
        if self.inner and len(made) > 1:
            errors = [inner_error(one, other) for one, other in zip(made[1:], taught[1:], strict=True)]
            loss = loss + self.inner * torch.stack(errors).mean()
        slopes = torch.autograd.grad(loss, self.weights)
        with torch.no_grad():
            pulled = [slope + decay * one for slope, decay, one in zip(slopes, self.decays, self.weights, strict=True)]
            torch._foreach_mul_(self.momenta, self.recipe.momentum)
            torch._foreach_add_(self.momenta, pulled)
            ahead = torch._foreach_add(pulled, self.momenta, alpha=self.recipe.momentum)
            torch._foreach_mul_(ahead, -self.rate)
            torch._foreach_add_(self.weights, ahead)

    def _augmented(self, images: Tensor) -> Tensor:
        """Each flipped with probability one half, and shifted."""
        count, _, height, width = images.shape

        def drawn(below: int) -> Tensor:
            return torch.randint(0, below, (count, 1), generator=self.random, device=self.device)

        images = torch.where(drawn(2).view(-1, 1, 1, 1) > 0, images.flip(3), images)
        padded = functional.pad(images, (SHIFT,) * 4, value=self.black)
        rows = drawn(2 * SHIFT + 1) + torch.arange(height, device=self.device)
        columns = drawn(2 * SHIFT + 1) + torch.arange(width, device=self.device)
        every = torch.arange(count, device=self.device)
        return padded[every[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _tuple(output: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return output if isinstance(output, tuple) else (output,)
