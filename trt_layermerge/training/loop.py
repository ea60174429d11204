"""Fine-tuning that can be stopped at any moment and goes on exactly where it was.

A run is a function of its recipe, task, initial weights and teacher alone: the randomness of each step is seeded by its
number, a step is done whole or not at all, and a checkpoint holds the state between two of them. On a CPU, with the
same number of threads, an interrupted run ends with the very bits of an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from trt_layermerge.errors import DivergedError, TaskError, UsageError
from trt_layermerge.network.device import device_named, device_of, placed
from trt_layermerge.network.inputs import each, samples_in
from trt_layermerge.progress import Progress, silent
from trt_layermerge.resources.heap import heap_kept
from trt_layermerge.resources.threads import thread_beside
from trt_layermerge.training.checkpoint import Checkpoint, Position
from trt_layermerge.training.decoupling import fade
from trt_layermerge.training.evaluate import fix_norms, in_mode
from trt_layermerge.training.gating import hold
from trt_layermerge.training.interrupt import held_back
from trt_layermerge.training.kernel_gradients import kernel_gradients
from trt_layermerge.training.layout import laid_out
from trt_layermerge.training.objective import Objective, with_precision
from trt_layermerge.training.process_group import ProcessGroup
from trt_layermerge.training.process_group import group as whole_group
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.run_identity import identity_of_run
from trt_layermerge.training.seeds import mixed_seed
from trt_layermerge.training.state import Average, make_optimizer, momenta_of, remember
from trt_layermerge.training.strides import Unstrided
from trt_layermerge.training.task import Shareable, Task, Unlabelled
from trt_layermerge.training.task_check import Checked, checked_batches, odd_targets, require_steps
from trt_layermerge.training.teaching import Part, Teaching

__all__ = ["Progress", "Recipe", "TrainingResult", "fine_tune"]

MOST_BACKOFFS = 4
"""How often a run that diverges begins again, each time at half the learning rate, before it is given up."""

DIVERGED = 1000.0
"""A loss is no longer one to learn from when it is so many times that of the first step, and so large in itself."""


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run has to say.

    Args:
        steps: Number of steps of the run.
        losses: Mean training loss of each epoch.
        resumed_at: Step at which this call took up the run: 0 for a fresh one, ``steps`` if it was finished already.
        lr: Learning rate at its peak.
        backoffs: How often the run diverged, and began again at half the rate; 0 if ``lr`` is the recipe's.
    """

    steps: int
    losses: tuple[float, ...]
    resumed_at: int
    lr: float
    backoffs: int


@heap_kept()
def fine_tune(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    *,
    checkpoint: Path,
    teacher: nn.Module | None = None,
    progress: Progress = silent,
    group: ProcessGroup | None = None,
) -> TrainingResult:
    """Train a model in place, or finish what an interrupted call with the same arguments began.

    What is minimised is said in ``objective.py``. The checkpoint is written every ``recipe.checkpoint_seconds``, after
    each epoch and when the run is interrupted; it stays when the run is finished, so that repeating the call trains
    nothing again.

    A run that diverges begins again from its initial weights at half the learning rate, and says so, up to
    ``MOST_BACKOFFS`` times.

    Args:
        model: Takes the task's inputs, ``[batch, ...]`` each; left with trained weights, its modes, place and
            contiguous layout as before.
        task: Data and loss.
        recipe: How to train.
        checkpoint: The file to resume from, which need not exist.
        teacher: Gives outputs of the model's shape for the same inputs; is not changed.
        progress: Called after each step, and once before the first.
        group: The processes that share each batch, and where; if not given those that a launcher has started.

    Raises:
        UsageError: The recipe distils or the task has no labels, and there is no teacher; or that is the model itself.
        TaskError: The task's batches or loss are not what ``Task`` says.
        DivergedError: The loss is no longer a finite number, or out of all proportion, whatever the learning rate.
        TableError: The checkpoint is damaged, or not a checkpoint.
        IncompatibleError: The checkpoint belongs to another run; the message says what differs.
    """
    teacher, group = _asked(teacher, model, task, recipe), group or whole_group(device_named("auto"))
    require_steps(task)
    device = group.device(device_of(model))
    recipe = with_precision(recipe, device)
    with _ready(model, teacher, recipe, device) as beside:
        if recipe.fixed_norms:
            fix_norms(model)
        run = _Run(model, teacher, task, recipe, checkpoint, progress, group, beside)
        resumed_at = run.resume()
        run.finish()
    return TrainingResult(run.steps, tuple(run.losses), resumed_at, run.lr, run.backoffs)


@contextmanager
def _ready(
    model: nn.Module, teacher: nn.Module | None, recipe: Recipe, device: torch.device
) -> Iterator[ThreadPoolExecutor | None]:
    """Inside, both networks are where and as they train and teach; yields a thread beside this one, if there is one."""
    with ExitStack() as stack:
        for network in (model,) if teacher is None else (model, teacher):
            stack.enter_context(placed(network, device, rounding=True))
            stack.enter_context(laid_out(network, recipe.channels_last))
            stack.enter_context(in_mode(network, training=network is model))
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        yield None if teacher is None or device.type != "cpu" else stack.enter_context(thread_beside())


def _asked(teacher: nn.Module | None, model: nn.Module, task: Task, recipe: Recipe) -> nn.Module | None:
    """The teacher, if anything is to be learned from it.

    Raises:
        UsageError: Something is, and there is none; or it is the model itself.
    """
    compares = isinstance(task, Unlabelled)
    if teacher is None and (compares or recipe.distillation > 0):
        why = f"task {task.name!r} has no labels" if compares else f"recipe: distillation is {recipe.distillation}"
        raise UsageError(f"{why} but there is no teacher to learn from")
    if teacher is model:
        raise UsageError("the teacher is the model itself; give it a copy of the model as it was")
    return teacher if compares or recipe.distillation > 0 else None


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
        group: ProcessGroup,
        beside: ThreadPoolExecutor | None,
    ) -> None:
        self.model, self.recipe = model, recipe
        self.path, self.progress, self.group = path, progress, group
        self.device = device_of(model)
        self.task = task.shared(group.rank, group.size) if isinstance(task, Shareable) else task
        self.epoch_steps = task.steps_per_epoch
        self.steps = recipe.steps_of(self.epoch_steps)
        self.epochs = -(-self.steps // self.epoch_steps)
        self.identity = identity_of_run(model, teacher, task, recipe, group)
        self.initial = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.wrapped = group.wrapped(model)
        self.objective = Objective(model, self.wrapped, teacher, self.task, recipe)
        self.teaching = Teaching(self.objective.taught, recipe.accumulation, beside)
        self.beside = beside if group.size == 1 else None  # what is shared has to be seen by who shares it
        self.saved_time, self.backoffs = time.monotonic(), 0
        self._begin()

    def _begin(self) -> None:
        """Stand before the first step; the weights are the initial ones."""
        self.optimizer = make_optimizer(self.model, self.recipe)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.recipe.precision == "fp16")
        self.average = Average(self.model) if self.recipe.average else None
        self.step, self.running, self.first_loss = 0, 0.0, 0.0
        self.losses: list[float] = []
        self.whole = True  # False inside a step, when some of the state has changed and some has not
        self.saved_step = 0

    def resume(self) -> int:
        """Take up the checkpoint if there is one; the step it stands at."""
        if self.path.exists():
            found = Checkpoint.read(self.path)
            found.require(self.identity, self.path)
            self.model.load_state_dict(found.weights)
            remember(self.model, self.optimizer, found.momenta)
            if self.average is not None:
                self.average.load(found.averages)
            if found.position.scaler:
                self.scaler.load_state_dict(dict(found.position.scaler))
            self.step = self.saved_step = found.position.step
            self.losses, self.running = list(found.position.losses), found.position.running
            self.first_loss, self.backoffs = found.position.first_loss, found.position.backoffs
        self.group.wait()  # nobody writes before all have read
        return self.step

    def finish(self) -> None:
        """Do all steps that are left; when anything stops them, keep what was done."""
        self.progress(self.step, self.steps, self._label())
        try:
            while self.step < self.steps:
                try:
                    self._finish_epoch()
                except DivergedError:
                    self._back_off()
            fade(self.model, 1.0)
        except BaseException:
            if self.whole and self.step > self.saved_step:
                self._save()
            raise
        finally:
            self.optimizer.zero_grad()
        if self.group.size > 1:
            self._agree()

    def _back_off(self) -> None:
        """Begin again at half the learning rate; called where a step has diverged, which all members see alike.

        Raises:
            DivergedError: That was done often enough.
        """
        if self.backoffs == MOST_BACKOFFS:
            raise
        self.backoffs += 1
        self.model.load_state_dict(self.initial)
        self._begin()
        self.progress(self.step, self.steps, self._label())

    def _agree(self) -> None:
        """End with what was written, all members alike: each has seen other samples in its norms."""
        self.group.wait()
        self.model.load_state_dict(Checkpoint.read(self.path).weights)

    def _finish_epoch(self) -> None:
        epoch, first = divmod(self.step, self.epoch_steps)
        task, seed = self.task, self.recipe.seed
        batches = checked_batches(
            task,
            "training_batches",
            lambda: task.training_batches(seed=seed, epoch=epoch, first_step=first),
            skipped=first,
        )
        end = min((epoch + 1) * self.epoch_steps, self.steps)
        coming = self.teaching.begin(partial(self._next, batches, self.step))
        for step in range(self.step, end):
            batch = coming()
            with held_back():
                if step + 1 < end:
                    coming = self.teaching.begin(partial(self._next, batches, step + 1))
                self._advance(batch)
            self.progress(self.step, self.steps, self._label())
            if time.monotonic() - self.saved_time >= self.recipe.checkpoint_seconds:
                self._save()
        if self.saved_step < self.step:
            self._save()

    def _next(self, batches: Iterator[Checked], step: int) -> Checked:
        """This member's part of the next batch, which is for this step, on its device."""
        batch = next(batches, None)
        if batch is None:
            raise TaskError(
                f"task {self.task.name!r}: training_batches yields {step % self.epoch_steps} batches in epoch "
                f"{step // self.epoch_steps}; steps_per_epoch says {self.epoch_steps}"
            )
        given, target = batch
        every = slice(None) if isinstance(self.task, Shareable) else slice(self.group.rank, None, self.group.size)
        if not len(given[0][every]):
            raise TaskError(
                f"task {self.task.name!r}: training_batches yields a batch of {len(given[0])} samples in step "
                f"{step + 1}, for {self.group.size} process{'es' * (self.group.size > 1)}",
                hint="make its batches larger, or leave out those that are too small",
            )
        aims = each(target, lambda values: values[every].to(self.device))
        return tuple(self._here(values[every]) for values in given), aims

    def _here(self, values: Tensor) -> Tensor:
        values = values.to(self.device)  # first: a GPU lays out faster
        if self.recipe.channels_last and values.ndim == 4:
            values = values.contiguous(memory_format=torch.channels_last)
        return values

    def _advance(self, batch: Sequence[Part]) -> None:
        """One step of the optimiser."""
        self.whole = False
        fade(self.model, self.recipe.faded_at(self.step, self.steps))
        self.optimizer.zero_grad()
        value = self.group.mean(self._gradients(batch))
        if self.step == 0:
            self.first_loss = value
        if not (math.isfinite(value) and value <= DIVERGED * max(1.0, self.first_loss)):
            raise self._diverged(value, batch)
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr() * group["scale"]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        hold(self.model)
        self._count(value)
        if self.average is not None:
            self.average.add(self.model, self.recipe.average_at(self.step - 1))
            if self.step == self.steps:
                self.model.load_state_dict(self.average.values)
        self.whole = True

    def _gradients(self, batch: Sequence[Part]) -> float:
        """Gradients of the batch, run part by part; its mean loss."""
        samples, total = sum(samples_in(part.inputs) for part in batch), 0.0
        for number, part in enumerate(batch, 1):
            # So dropout need not be in the checkpoint, and is the same whatever a task has drawn or seeded before.
            torch.manual_seed(mixed_seed(self.recipe.seed, self.step, number))
            shared = self.group.alone(self.wrapped) if number < len(batch) else nullcontext()
            with shared, kernel_gradients(self.model, self.beside):
                with Unstrided():
                    loss = self.objective(part) * (samples_in(part.inputs) / samples)
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.item()  # not before: reading it waits until a GPU has done all that was queued
        return total

    @property
    def lr(self) -> float:
        """Learning rate at its peak."""
        return self.recipe.lr * 0.5**self.backoffs

    def _lr(self) -> float:
        return self.recipe.lr_at(self.step, self.steps) * 0.5**self.backoffs

    def _diverged(self, loss: float, batch: Sequence[Part]) -> DivergedError:
        odd = "; its batch has ".join(["", *filter(None, (odd_targets(part.target) for part in batch))])
        tries = f", after {self.backoffs} tries at higher rates" if self.backoffs else ""
        return DivergedError(
            f"the training loss is {loss:.3g} at step {self.step} of {self.steps}, "
            f"learning rate {self._lr():.3g}{tries}{odd}",
            hint=f"lower lr (it is {self.recipe.lr:g}), set clip_norm, or look for values in the data that are not "
            f"numbers; then delete {self.path}",
        )

    def _count(self, loss: float) -> None:
        self.step, self.running = self.step + 1, self.running + loss
        if self.step % self.epoch_steps == 0 or self.step == self.steps:
            self.losses.append(self.running / ((self.step - 1) % self.epoch_steps + 1))
            self.running = 0.0

    def _label(self) -> str:
        epoch, steps = divmod(self.step, self.epoch_steps)
        slower = f", diverged, now at lr {self.lr:g}" if self.backoffs else ""
        if steps and self.step < self.steps:
            return f"epoch {epoch + 1} of {self.epochs}, loss {self.running / steps:.4f}{slower}"
        if self.losses:
            return f"epoch {len(self.losses)} of {self.epochs}, loss {self.losses[-1]:.4f}{slower}"
        return f"epoch 1 of {self.epochs}{slower}"

    def _save(self) -> None:
        finished = self.step == self.steps
        if self.group.rank == 0:
            Checkpoint(
                self.identity,
                self._position(finished),
                self.model.state_dict(),
                {} if finished else momenta_of(self.model, self.optimizer),
                {} if finished or self.average is None else self.average.values,
            ).write(self.path)
        self.saved_step, self.saved_time = self.step, time.monotonic()

    def _position(self, finished: bool) -> Position:
        scaler = self.scaler.state_dict()
        return Position(self.step, tuple(self.losses), self.running, finished, scaler, self.first_loss, self.backoffs)
