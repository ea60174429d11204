"""Can fits be solved on calibration data, and are they like what networks are evaluated on? Asked before either.

Looked at are the first images of both data sets, of the inputs that take real numbers:

1. If all of them are the same, or none has any contrast, nothing can be solved or measured: an error.
2. If many of them occur again, there is less data than it seems: a caution.
3. If a channel of the calibration data has a mean or a spread far from those of the held-out data, one of them is not
   prepared as the other: a caution.
4. If the network is right less often than by guessing, classes are likely to be numbered otherwise than its outputs,
   as those of folders are by their names: a caution.
5. If all held-out targets are the same, a network that says the same of everything is right, and no figure tells it
   from a good one: a caution, for labels may be stand-ins of somebody who has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import prod

import torch
from torch import Tensor, nn

from trt_layermerge.errors import ModelError, TaskError
from trt_layermerge.importance.evaluator import first
from trt_layermerge.network.inputs import Input, Values, as_tuple
from trt_layermerge.network.network import Network
from trt_layermerge.training.datasets import UNLABELLED
from trt_layermerge.training.task import Task, Unlabelled, metric_name
from trt_layermerge.training.task_check import NO_LABEL

IMAGES = 256
"""Of each data set that are looked at; reading all of them may take as long as using them."""

LABELS = 128
"""Held-out images that the network is asked about."""

_REPEATED, _SHIFT, _SPREAD = 0.1, 1.0, 3.0
"""Share of images that may occur again; how far means may be apart, in standard deviations; and the ratio of these."""


def data_cautions(task: Task, inputs: Sequence[Input]) -> tuple[str, ...]:
    """What a user must know of a task's data before trusting what is measured on them.

    Args:
        task: The task; only its calibration and held-out data are read.
        inputs: What the network takes.

    Raises:
        TaskError: Nothing can be solved or measured on them.
    """
    sets = {"calibration": task.calibration_batches(), "held-out": task.held_out_batches()}
    found = {name: list(first(batches, IMAGES)) for name, batches in sets.items()}
    cautions = []
    for index, item in enumerate(inputs):
        if item.below is not None or prod(item.shape) < 2:
            continue
        both = {name: torch.cat([given[index] for given, _ in batches]) for name, batches in found.items()}
        of = f"of task {task.name!r}" + (f", input {item.name!r}," if len(inputs) > 1 else "")
        for name, values in both.items():
            cautions += _repeated(values, f"{name} data {of}")
        cautions += _apart(both["calibration"], both["held-out"], of)
    return (*cautions, *_targets_alike(task, [targets for _, targets in found["held-out"]]))


def label_cautions(network: Network, task: Task) -> tuple[str, ...]:
    """Rule 4, for tasks whose metric is the share of right answers among classes."""
    if metric_name(task) is not None:
        return ()
    right, chance, unsure = 0.0, 0.0, 0.0
    for inputs, targets in first(task.held_out_batches(), LABELS):
        with torch.inference_mode():
            outputs = network.module(*inputs)
        if not _are_classes(outputs, targets):
            return ()
        right += float(task.metric(outputs, targets).sum())
        chance += len(targets) / outputs.shape[1]
        unsure += len(targets) * (outputs.shape[1] - 1) / outputs.shape[1] ** 2
    if right + 3 * unsure**0.5 >= chance:
        return ()
    return (
        f"{network.name} is right less often than by guessing on the held-out data of task {task.name!r}: on "
        f"{right:.0f} of the first images, and guessing on {chance:.0f}; are classes numbered as its outputs are?",
    )


def _are_classes(outputs: object, targets: object) -> bool:
    """``[batch, classes]``, and which of these, ``[batch]``."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return False
    return outputs.ndim == 2 and outputs.shape[1] > 1 and targets.ndim == 1 and not targets.is_floating_point()


def norm_cautions(network: Network) -> tuple[str, ...]:
    """What a user must know of a network's batch norms before trusting it.

    Raises:
        ModelError: A variance is no variance.
    """
    cautions = []
    for name, norm in network.module.named_modules():
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None:
            continue
        if not bool((norm.running_var >= 0).all()):  # NaN too
            raise ModelError(
                f"{network.name}: norm {name} has variances that are negative or no numbers",
                hint="are these the weights of a network that was trained to the end?",
            )
        none = int((norm.running_var == 0).sum())
        if 2 * none > norm.num_features:
            cautions.append(
                f"{network.name}: norm {name} has variance 0 in {none} of {norm.num_features} channels; it has seen "
                "nothing but constants"
            )
    return tuple(cautions)


def _repeated(values: Tensor, what: str) -> list[str]:
    """Rules 1 and 2."""
    count, flat = len(values), values.flatten(1).contiguous()
    contrast = flat.amax(1) - flat.amin(1)
    if count and bool((contrast == 0).all()):
        raise TaskError(
            f"the {what} are constant: none of the first {count} has two different numbers in it",
            hint="nothing can be solved or measured on them; look at how the images are read",
        )
    distinct = len({blake2b(row.numpy().tobytes(), digest_size=16).digest() for row in flat})
    if count > 1 and distinct == 1:
        raise TaskError(
            f"the {what} are all the same: there is one image, {count} times",
            hint="nothing can be solved or measured on them; look at how the images are read",
        )
    if count - distinct <= _REPEATED * count:
        return []
    return [f"the {what} repeat themselves: of the first {count}, {distinct} are different"]


def _targets_alike(task: Task, batches: Sequence[Values]) -> list[str]:
    """Rule 5; of several targets, one that differs is enough."""
    of_each = [_labelled(values) for values in zip(*map(as_tuple, batches), strict=False)]
    if not of_each or not all(len(rows) > 1 and _same(rows) for rows in of_each):
        return []
    count, one = len(of_each[0]), of_each[0][0]
    if isinstance(task, Unlabelled):
        return [
            f"the network makes the same of all held-out samples of task {task.name!r}, of the first {count}: any "
            "other that does so is as near to it as can be; are these its weights, and samples that it is for?"
        ]
    each = f"is {one.item():g}" if one.ndim == 0 else "has the same"
    return [
        f"the targets of the held-out data of task {task.name!r} are all alike, each of the first {count} {each}: a "
        "network that always says so is right, and training makes it one; are they read as they should be? Where there "
        f"are none, --task {UNLABELLED}:FOLDER needs none"
    ]


def _labelled(batches: Sequence[Tensor]) -> list[Tensor]:
    """Targets of single samples, but of those that have none."""
    return [row for values in batches for row in values if row.is_floating_point() or bool((row != NO_LABEL).any())]


def _same(rows: Sequence[Tensor]) -> bool:
    return all(torch.equal(rows[0], row) for row in rows[1:])


def _apart(calibration: Tensor, held_out: Tensor, of: str) -> list[str]:
    """Rule 3."""
    (mean, spread), (other_mean, other_spread) = _statistics(calibration), _statistics(held_out)
    shift = (mean - other_mean).abs() / torch.maximum(other_spread, spread).clamp_min(1e-12)
    ratio = torch.maximum(spread, other_spread) / torch.minimum(spread, other_spread).clamp_min(1e-12)
    if bool((shift <= _SHIFT).all()) and bool((ratio <= _SPREAD).all()):
        return []
    worst = int(torch.maximum(shift / _SHIFT, ratio / _SPREAD).argmax())
    return [
        f"the calibration data {of} are unlike the held-out data: in channel {worst} they are {mean[worst]:.3g} +- "
        f"{spread[worst]:.3g}, the others {other_mean[worst]:.3g} +- {other_spread[worst]:.3g}; are both normalised "
        "alike?"
    ]


def _statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel; of all there is, where there are no channels.

    Channels are the shorter one of a sample's first and last axis: images may be ``[height, width, 3]``, sounds
    ``[length, 1]``, and a pixel of its own has too few values to tell anything.
    """
    axis = 1 if values.shape[1] <= values.shape[-1] else values.ndim - 1
    channels = values.double().movedim(axis, 0).flatten(1) if values.ndim > 2 else values.double().reshape(1, -1)
    return channels.mean(1), channels.std(1, correction=0)
