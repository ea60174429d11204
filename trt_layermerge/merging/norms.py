"""Batch norms behind a change: the statistics that they normalise by are no longer those of what reaches them.

Corrected from a few hundred images, without labels, they take back most of what a change costs before training, and
what is left ranks changes much as training does (Li et al., EagleEye, arXiv 2007.02491). They are not estimated anew:
the original's are those of its training data, which need not be alike, and a network whose every norm is normalised by
other data is another function. They move as what reaches them has moved from what reached them in the original, on the
same images; where nothing has changed, nothing does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

TOGETHER, NUMBERS = 16, 1 << 24
"""Batches are joined up to so many samples, or to so many numbers in all, which bounds the memory that it takes."""

Sums = Float[Tensor, "3 channels"]
"""Of each channel: how many numbers, their sum, and that of their squares."""

NormInputs = Sequence[Mapping[str, Sums]]
"""What reaches each batch norm, by its name, in one batch after the other."""

Hook = Callable[[nn.Module, tuple[Tensor, ...]], None]


def norm_inputs(module: nn.Module, batches: Iterable[Sequence[Tensor]]) -> NormInputs:
    """What reaches the batch norms of an original; those that are called several times, or never, are left out.

    Args:
        module: In evaluation mode.
        batches: Its inputs, ``[batch, ...]`` each, joined (``joined_batches``).
    """
    found: list[dict[str, Sums]] = []
    calls: list[tuple[str, Sums]] = []

    def noting(name: str, _: nn.BatchNorm2d) -> Hook:
        return lambda _, given: calls.append((name, _sums(given[0])))

    with _hooked(_norms(module), noting), torch.inference_mode():
        for inputs in batches:
            calls.clear()
            module(*inputs)
            names = [name for name, _ in calls]
            found.append({name: sums for name, sums in calls if names.count(name) == 1})
    return found


def correct_norms(
    module: nn.Module, batches: Iterable[Sequence[Tensor]], original: NormInputs, among: Iterable[str] | None = None
) -> None:
    """Move the running statistics of batch norms as what reaches them has moved, in one pass over some data.

    In that pass each batch is normalised by statistics that are corrected for it alone, so that no norm has to wait for
    those before it. Norms that the original does not have, or of other channels, stay as they are.

    Args:
        module: In evaluation mode.
        batches: Its inputs, ``[batch, ...]`` each, of the same samples as ``original``.
        original: What reached the original's norms.
        among: The names of the norms; all of them if not given.
    """
    norms = {name: norm for name, norm in _norms(module).items() if among is None or name in set(among)}
    if not norms or not original:
        return
    starts = {name: _statistics(norm) for name, norm in norms.items()}
    totals: dict[str, tuple[Sums, Sums]] = {}
    current: dict[str, Sums] = {}

    def correcting(name: str, norm: nn.BatchNorm2d) -> Hook:
        def hook(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            was = current.get(name)
            if was is None or was.shape[1] != norm.num_features:
                return
            now = _sums(given[0])
            before = totals.get(name, (torch.zeros_like(was), torch.zeros_like(was)))
            totals[name] = before[0] + was, before[1] + now
            _move(norm, starts[name], was, now)

        return hook

    with _hooked(norms, correcting), torch.inference_mode():
        for reached, inputs in zip(original, batches, strict=True):
            current.clear()
            current.update(reached)
            module(*inputs)
    for name, (was, now) in totals.items():
        _move(norms[name], starts[name], was, now)


def joined_batches(batches: Iterable[Sequence[Tensor]]) -> Iterator[tuple[Tensor, ...]]:
    """The batches, small ones together with those that follow: statistics of a few samples are not those of all."""
    waiting: list[Sequence[Tensor]] = []
    for batch in batches:
        waiting.append(batch)
        samples, numbers = (sum(map(size, waiting)) for size in (_samples, _numbers))
        if samples >= TOGETHER or numbers >= NUMBERS:
            yield _one(waiting)
            waiting = []
    if waiting:
        yield _one(waiting)


def _norms(module: nn.Module) -> dict[str, nn.BatchNorm2d]:
    parts = module.named_modules()
    return {name: part for name, part in parts if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None}


@contextmanager
def _hooked(norms: Mapping[str, nn.BatchNorm2d], make: Callable[[str, nn.BatchNorm2d], Hook]) -> Iterator[None]:
    hooks = [norm.register_forward_pre_hook(make(name, norm)) for name, norm in norms.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def channel_moments(
    x: Float[Tensor, "batch channels height width"],
) -> tuple[Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """Mean and variance of each channel, in float64 from sums in x's own precision.

    In two passes, which is as exact as ``torch.var_mean``; that takes seven times as long on a CPU.
    """
    mean = x.mean((0, 2, 3), keepdim=True)
    return mean.flatten().double(), (x - mean).square().mean((0, 2, 3)).double()


def _sums(x: Tensor) -> Sums:
    mean, variance = channel_moments(x)
    return x.numel() // x.shape[1] * torch.stack([torch.ones_like(mean), mean, variance + mean.square()])


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean.clone(), norm.running_var.clone()


def _move(norm: nn.BatchNorm2d, start: tuple[Tensor, Tensor], was: Sums, now: Sums) -> None:
    """Set statistics to what the change has made of them, taken for a scale and an offset of each channel."""
    (old_mean, old_variance), (mean, variance) = (_mean_and_variance(sums) for sums in (was, now))
    ratio = (variance + norm.eps) / (old_variance + norm.eps)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean + ratio.sqrt() * (start[0] - old_mean))
    norm.running_var.copy_(((start[1] + norm.eps) * ratio - norm.eps).clamp_min(0))


def _mean_and_variance(sums: Sums) -> tuple[Tensor, Tensor]:
    count, total, squares = sums
    mean = total / count
    return mean, (squares / count - mean.square()).clamp_min(0)


def _samples(batch: Sequence[Tensor]) -> int:
    return len(batch[0])


def _numbers(batch: Sequence[Tensor]) -> int:
    return sum(inputs.numel() for inputs in batch)


def _one(batches: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    return tuple(batches[0]) if len(batches) == 1 else tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
