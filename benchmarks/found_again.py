"""Metrics of what a network is used for: text boxes and text that the original finds, found again.

trt-layermerge compress det.onnx --metric benchmarks/found_again.py:text_boxes ...
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

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
    """Boxes around the parts of masks ``[batch, height, width]`` that hang together, corners too."""
    numbers = torch.arange(1.0, text[0].numel() + 1, device=text.device).view(1, *text.shape[1:])
    parts, before = numbers * text, torch.zeros_like(text, dtype=torch.float32)
    while not torch.equal(parts, before):  # each pixel takes the largest number that reaches it, and then that one's
        before, parts = parts, F.max_pool2d(parts[:, None], 3, 1, 1)[:, 0] * text
        named = (parts.flatten(1).long() - 1).clamp_min(0)
        parts = parts.flatten(1).gather(1, named).view_as(parts) * text
    return _around(parts)


def _around(parts: Tensor) -> list[Boxes]:
    """Boxes around pixels of one number in one map, small ones left out; on the CPU."""
    image, row, column = parts.nonzero().unbind(1)
    pixels = parts[0].numel()
    whose, part = (image * (pixels + 1) + parts[image, row, column].long()).unique(return_inverse=True)
    first = torch.full((2, len(whose)), pixels, device=parts.device).scatter_reduce(
        1, part.expand(2, -1), torch.stack([column, row]), "amin"
    )
    last = torch.zeros_like(first).scatter_reduce(1, part.expand(2, -1), torch.stack([column, row]) + 1, "amax")
    boxes, owners = torch.cat([first, last]).T.cpu(), (whose // (pixels + 1)).cpu()
    large = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= LEAST_SIDE
    return [boxes[large & (owners == number)] for number in range(len(parts))]


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
