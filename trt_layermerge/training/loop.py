"""Fine-tuning that can be stopped at any moment and goes on exactly where it was.

A run is a function of its recipe, task, initial weights and teacher alone: the randomness of each step is seeded by its
number, a step is done whole or not at all, and a checkpoint holds the state between two of them. On a CPU, with the
same number of threads, an interrupted run ends with the very bits of an uninterrupted one.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn

from trt_layermerge.errors import DivergedError, TaskError, UsageError
from trt_layermerge.training.check import asking, require_batch
from trt_layermerge.training.checkpoint import Checkpoint, Identity, Position, described, digest
from trt_layermerge.training.decoupling import fade
from trt_layermerge.training.distillation import distillation_loss
from trt_layermerge.training.evaluate import device_of, in_mode
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.seeds import mixed_seed
from trt_layermerge.training.task import Batch, Task

__all__ = ["Progress", "Recipe", "TrainingResult", "fine_tune"]

Progress = Callable[[int, int, str], None]
"""Is told the steps done, the steps there are, and a few words; may evaluate the model, must not change it."""


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run has to say.

    Args:
        steps: Number of steps of the run.
        losses: Mean training loss of each epoch.
        resumed_at: Step at which this call took up the run: 0 for a fresh one, ``steps`` if it was finished already.
    """

    steps: int
    losses: tuple[float, ...]
    resumed_at: int


def fine_tune(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    checkpoint: Path,
    teacher: nn.Module | None = None,
    progress: Progress = lambda done, total, label: None,
) -> TrainingResult:
    """Train a model in place, or finish what an interrupted call with the same arguments began.

    The loss is (1 - a) task loss + a T^2 KL(teacher || student) with the recipe's distillation weight a and temperature
    T (Hinton et al., arXiv 1503.02531). The checkpoint is written every ``recipe.checkpoint_seconds``, after each epoch
    and when the run is interrupted; it stays when the run is finished, so that repeating the call trains nothing again.

    Args:
        model: Takes ``[batch, ...]``; left with trained weights, its modes and contiguous layout as before.
        task: Data and loss.
        recipe: How to train.
        checkpoint: The file to resume from, which need not exist.
        teacher: Gives logits of the model's shape for the same inputs; is not changed.
        progress: Called after each step, and once before the first.

    Raises:
        UsageError: The recipe distils and there is no teacher, or the teacher is the model itself.
        TaskError: The task's batches or loss are not what ``Task`` says.
        DivergedError: The loss is no longer a finite number.
        TableError: The checkpoint is damaged, or not a checkpoint.
        IncompatibleError: The checkpoint belongs to another run; the message says what differs.
    """
    if recipe.distillation > 0 and teacher is None:
        raise UsageError(f"recipe: distillation is {recipe.distillation} but there is no teacher to learn from")
    if teacher is model:
        raise UsageError("the teacher is the model itself; give it a copy of the model as it was")
    if task.steps_per_epoch < 1:
        raise TaskError(
            f"task {task.name!r}: an epoch has {task.steps_per_epoch} steps; there is nothing to train on",
            hint="make its batches smaller, or give it more training data",
        )
    teacher = teacher if recipe.distillation > 0 else None
    device = device_of(model)
    run = _Run(model, teacher, task, recipe, checkpoint, progress)
    with (
        _laid_out(model, recipe.channels_last),
        in_mode(model, training=True),
        nullcontext() if teacher is None else in_mode(teacher, training=False),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
    ):
        resumed_at = run.resume()
        run.finish()
    return TrainingResult(run.steps, tuple(run.losses), resumed_at)


class _Run:
    """One run between two steps: what a checkpoint holds, and the step that changes it."""

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module | None,
        task: Task,
        recipe: Recipe,
        path: Path,
        progress: Progress,
    ) -> None:
        self.model, self.teacher, self.task, self.recipe = model, teacher, task, recipe
        self.path, self.progress = path, progress
        self.device = device_of(model)
        self.epoch_steps = task.steps_per_epoch
        self.steps = recipe.epochs * self.epoch_steps
        self.identity = _identity(model, teacher, task, recipe)
        self.optimizer = _optimizer(model, recipe)
        self.step, self.running = 0, 0.0
        self.losses: list[float] = []
        self.whole = True  # False inside a step, when some of the state has changed and some has not
        self.saved_step, self.saved_time = 0, time.monotonic()

    def resume(self) -> int:
        """Take up the checkpoint if there is one; the step it stands at."""
        if self.path.exists():
            found = Checkpoint.read(self.path)
            found.require(self.identity, self.path)
            self.model.load_state_dict(found.weights)
            for name, parameter in self.model.named_parameters():
                if name in found.momenta:
                    momentum = torch.empty_like(parameter).copy_(found.momenta[name])
                    self.optimizer.state[parameter]["momentum_buffer"] = momentum
            self.step = self.saved_step = found.position.step
            self.losses, self.running = list(found.position.losses), found.position.running
        return self.step

    def finish(self) -> None:
        """Do all steps that are left; when anything stops them, keep what was done."""
        self.progress(self.step, self.steps, self._label())
        try:
            while self.step < self.steps:
                self._finish_epoch()
            fade(self.model, 1.0)
        except BaseException:
            if self.whole and self.step > self.saved_step:
                self._save()
            raise
        finally:
            self.optimizer.zero_grad()

    def _finish_epoch(self) -> None:
        epoch, first = divmod(self.step, self.epoch_steps)
        with asking(self.task, "training_batches"):
            batches = iter(self.task.training_batches(seed=self.recipe.seed, epoch=epoch, first_step=first))
        for _ in range(first, self.epoch_steps):
            batch = self._next(batches)
            with _whole():
                self._advance(*batch)
            self.progress(self.step, self.steps, self._label())
            if time.monotonic() - self.saved_time >= self.recipe.checkpoint_seconds:
                self._save()
        if self.saved_step < self.step:
            self._save()

    def _next(self, batches: Iterator[Batch]) -> Batch:
        with asking(self.task, "training_batches"):
            batch = next(batches, None)
        if batch is None:
            raise TaskError(
                f"task {self.task.name!r}: training_batches yields {self.step % self.epoch_steps} batches in epoch "
                f"{self.step // self.epoch_steps}; steps_per_epoch says {self.epoch_steps}"
            )
        inputs, target = require_batch(batch, self.task, "training_batches")
        if self.recipe.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs.to(self.device), target.to(self.device)

    def _advance(self, inputs: Tensor, target: Tensor) -> None:
        """One step of the optimiser."""
        self.whole = False
        torch.manual_seed(mixed_seed(self.recipe.seed, self.step))  # so dropout need not be in the checkpoint
        fade(self.model, self.recipe.faded_at(self.step, self.steps))
        loss = self._loss(inputs, target)
        value = loss.item()
        if not math.isfinite(value):
            raise self._diverged(value)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(self.step, self.steps)
        self.optimizer.step()
        self._count(value)
        self.whole = True

    def _loss(self, inputs: Tensor, target: Tensor) -> Tensor:
        share = self.recipe.distillation
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            output = self.model(inputs)
            with torch.no_grad():
                taught = None if self.teacher is None else self.teacher(inputs)
        output = output.float()
        with asking(self.task, "loss"):
            loss = self.task.loss(output, target)
        if loss.ndim != 0:
            raise TaskError(f"task {self.task.name!r}: loss returns {list(loss.shape)}; it must be the batch's mean")
        if taught is not None:
            loss = (1 - share) * loss + share * distillation_loss(output, taught.float(), self.recipe.temperature)
        return loss

    def _diverged(self, loss: float) -> DivergedError:
        return DivergedError(
            f"the training loss is {loss} at step {self.step} of {self.steps}, "
            f"learning rate {self.recipe.lr_at(self.step, self.steps):.3g}",
            hint=f"lower lr (it is {self.recipe.lr:g}), set clip_norm, or look for values in the data that are not "
            f"numbers; then delete {self.path}",
        )

    def _count(self, loss: float) -> None:
        self.step, self.running = self.step + 1, self.running + loss
        if self.step % self.epoch_steps == 0:
            self.losses.append(self.running / self.epoch_steps)
            self.running = 0.0

    def _label(self) -> str:
        epoch, steps = divmod(self.step, self.epoch_steps)
        if steps:
            return f"epoch {epoch + 1} of {self.recipe.epochs}, loss {self.running / steps:.4f}"
        if self.losses:
            return f"epoch {epoch} of {self.recipe.epochs}, loss {self.losses[-1]:.4f}"
        return f"epoch 1 of {self.recipe.epochs}"

    def _save(self) -> None:
        finished = self.step == self.steps
        names = {} if finished else dict(self.model.named_parameters())
        state = {name: self.optimizer.state[parameter] for name, parameter in names.items()}
        Checkpoint(
            self.identity,
            Position(self.step, tuple(self.losses), self.running, finished),
            self.model.state_dict(),
            {name: kept["momentum_buffer"] for name, kept in state.items() if kept.get("momentum_buffer") is not None},
        ).write(self.path)
        self.saved_step, self.saved_time = self.step, time.monotonic()


def _identity(model: nn.Module, teacher: nn.Module | None, task: Task, recipe: Recipe) -> Identity:
    """Everything the result depends on."""
    numbers = {f"recipe {field}": value for field, value in asdict(recipe).items() if field != "checkpoint_seconds"}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    tensors = {
        f"tensor {name}": described(tensor) + (" frozen" if name in frozen else "")
        for name, tensor in model.state_dict().items()
    }
    return {
        "task": task.name,
        "steps per epoch": task.steps_per_epoch,
        **numbers,
        **tensors,
        "initial weights": digest(model.state_dict()),
        "teacher": None if teacher is None else digest(teacher.state_dict()),
    }


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},  # biases and norms
    ]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


@contextmanager
def _laid_out(model: nn.Module, channels_last: bool) -> Iterator[None]:
    """Kernels in NHWC layout while inside, contiguous again after."""

    def lay_out(layout: torch.memory_format) -> None:
        for parameter in model.parameters():
            if parameter.ndim == 4:  # Module.to would also try 5-dimensional kernels, and raise
                parameter.data = parameter.data.contiguous(memory_format=layout)

    lay_out(torch.channels_last if channels_last else torch.contiguous_format)
    try:
        yield
    finally:
        lay_out(torch.contiguous_format)


@contextmanager
def _whole() -> Iterator[None]:
    """Hold Ctrl-C back until the step inside is done, so that it can be saved; a second one goes through."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield  # Python tells only its main thread of signals
        return
    held = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal held
        if held:
            raise KeyboardInterrupt
        held = True

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)
