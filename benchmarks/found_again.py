"""Metrics of what a network is used for: text boxes and text that the original finds, found again.

trt-layermerge compress det.onnx --metric benchmarks/found_again.py:text_boxes ...
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

THRESHOLD, LEAST_SIDE = 0.3, 3
"""Of a map of text: from where on a pixel is text, and the shortest side of a box; PP-OCR's own settings."""

Boxes = Tensor
"""Left, top, right and bottom, one past the last pixel: ``[boxes, 4]``."""


def text_boxes(outputs: Mapping[str, Tensor], original: Mapping[str, Tensor]) -> Tensor:
    """Intersection over union of boxes around text with the original's, mean over boxes; one without a match counts 0.

    Outputs are a map each, ``[batch, 1, height, width]``.
    """
    ((both),) = zip(outputs.values(), original.values(), strict=True)
    found, wanted = (boxes_in(values[:, 0] > THRESHOLD) for values in both)
    return torch.tensor([overlap(*pair) for pair in zip(found, wanted, strict=True)])


def text(outputs: Mapping[str, Tensor], original: Mapping[str, Tensor]) -> Tensor:
    """One less the edit distance of what is read, as a share of the longer text.

    Outputs are probabilities of characters, ``[batch, places, characters]``, the first one being none (CTC).
    """
    ((both),) = zip(outputs.values(), original.values(), strict=True)
    found, wanted = ([_read(one) for one in values.argmax(2).tolist()] for values in both)
    return torch.tensor([_likeness(*pair) for pair in zip(found, wanted, strict=True)])


def boxes_in(text: Tensor) -> list[Boxes]:
    """Boxes around the parts of masks ``[batch, height, width]`` that hang together, corners too; on the CPU."""
    return [torch.from_numpy(_boxes_in(mask)) for mask in text.cpu().numpy()]


def _boxes_in(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Those of one mask: each run of pixels in a row is joined to those that it touches in the row above."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (row, first), last = np.nonzero(steps == 1), np.nonzero(steps == -1)[1]
    stride = mask.shape[1] + 2  # no run of another row is found between two places of one row
    above = (row - 1) * stride
    begin = np.searchsorted(row * stride + last, above + first)
    end = np.searchsorted(row * stride + first, above + last, "right")
    part = list(range(len(row)))

    def root(run: int) -> int:
        while part[run] != run:
            part[run] = part[part[run]]
            run = part[run]
        return run

    for run, touched in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
        for other in range(*touched):
            part[root(other)] = root(run)
    roots, number = np.unique([root(run) for run in part], return_inverse=True)
    least, most = np.full((len(roots), 2), mask.size), np.zeros((len(roots), 2), np.int64)
    np.minimum.at(least, number, np.stack([first, row], 1))
    np.maximum.at(most, number, np.stack([last, row + 1], 1))
    return np.concatenate([least, most], 1)[(most - least).min(1, initial=mask.size) >= LEAST_SIDE]


def overlap(found: Boxes, wanted: Boxes) -> float:
    """Sum of the intersections over union of boxes, the best pairs first, by the larger number of boxes."""
    if not len(found) or not len(wanted):
        return float(len(found) == len(wanted))
    sides = torch.minimum(found[:, None, 2:], wanted[None, :, 2:]) - torch.maximum(
        found[:, None, :2], wanted[None, :, :2]
    )
    common = sides.clamp_min(0).prod(2).double()
    areas = [(one[:, 2:] - one[:, :2]).prod(1).double() for one in (found, wanted)]
    shares = common / (areas[0][:, None] + areas[1][None] - common)
    total = 0.0
    for _ in range(min(shares.shape)):
        row, column = divmod(int(shares.argmax()), shares.shape[1])
        total += float(shares[row, column])
        shares[row], shares[:, column] = 0, 0
    return total / max(len(found), len(wanted))


def _read(places: list[int]) -> list[int]:
    """Characters, those that repeat the place before and blanks left out."""
    return [one for one, before in zip(places, [0, *places[:-1]], strict=True) if one and one != before]


def _likeness(found: list[int], wanted: list[int]) -> float:
    """One less the edit distance over the longer length."""
    row = list(range(len(wanted) + 1))
    for number, one in enumerate(found, 1):
        before, row = row, [number]
        for place, other in enumerate(wanted):
            row.append(min(before[place] + (one != other), before[place + 1] + 1, row[place] + 1))
    return 1 - row[-1] / max(len(found), len(wanted), 1)
