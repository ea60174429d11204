"""Networks as a planner sees them, made up but for their shapes: choices of whole networks, with four widths a group.

Latencies follow a model of a device, with channels on a staircase of eight and an error of measurement for each
distinct operation, so that equal operations take equally long. Losses are drawn at random and grow with what goes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trt_layermerge.planning.problem import Item, Problem
from trt_layermerge.planning.widths import WidthGroup, WidthOption

SHARES = (1.0, 0.75, 0.5, 0.25)
KERNELS = (1, 3, 5, 7)  # of fits
LONGEST = 12  # layers of a block
BATCH = 8


class Operation(NamedTuple):
    """What a latency depends on."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    depthwise: bool
    size: int


@dataclass(frozen=True)
class Step:
    """A layer: a convolution, and the groups and channels of what it reads and writes; groups of fixed width are empty.

    A projection that is added to its result reads ``beside``: group and channels.
    """

    kernel: int
    stride: int
    depthwise: bool
    size: int
    source: tuple[str, int]
    target: tuple[str, int]
    beside: tuple[str, int] | None = None


@dataclass(frozen=True)
class Shape:
    """One chain.

    Attributes:
        steps: Its layers.
        skips: Tensors that are added to the results of layers.
    """

    steps: tuple[Step, ...]
    skips: tuple[tuple[int, int], ...]

    def problem(self, shares: tuple[float, ...] = SHARES, seed: int = 0) -> Problem:
        """Keep, fit and drop whatever blocks have, each at all widths."""
        return _Maker(self, shares, np.random.default_rng(seed)).problem


def resnet(widths: tuple[int, ...], blocks: tuple[int, ...], size: int, stem: int) -> Shape:
    """Stages of basic blocks, the first of each but the first with a projection."""
    steps = [Step(stem, 1, False, size, ("", 3), ("stream 0", widths[0]))]
    skips = []
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(count):
            begin, inner = len(steps), (f"inner {stage}.{block}", width)
            stride, source, target = 2 if stage and not block else 1, steps[-1].target, (f"stream {stage}", width)
            steps.append(Step(3, stride, False, size, source, inner))
            size //= stride
            steps.append(Step(3, 1, False, size, inner, target, source if source != target else None))
            skips.append((begin, begin + 2))
    return Shape(tuple(steps), tuple(skips))


def mobilenet_v2(size: int = 224) -> Shape:
    """Inverted residuals: expansion, depthwise, projection; 52 layers."""
    steps = [Step(3, 2, False, size, ("", 3), ("stem", 32)), Step(3, 1, True, size // 2, ("stem", 32), ("stem", 32))]
    steps.append(Step(1, 1, False, size // 2, ("stem", 32), ("stream 0", 16)))
    skips, size = [], size // 2
    stages = ((6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for stage, (factor, width, count, stride) in enumerate(stages, 1):
        for block in range(count):
            source, target = steps[-1].target, (f"stream {stage}", width)
            inner, pace = (f"inner {stage}.{block}", source[1] * factor), stride if not block else 1
            if source == target:
                skips.append((len(steps), len(steps) + 3))
            steps.append(Step(1, 1, False, size, source, inner))
            steps.append(Step(3, pace, True, size, inner, inner))
            size //= pace
            steps.append(Step(1, 1, False, size, inner, target))
    steps.append(Step(1, 1, False, size, steps[-1].target, ("", 1280)))
    return Shape(tuple(steps), tuple(skips))


SHAPES = {
    "ResNet-20": lambda: resnet((16, 32, 64), (3, 3, 3), 32, 3),
    "ResNet-34": lambda: resnet((64, 128, 256, 512), (3, 4, 6, 3), 56, 7),
    "MobileNetV2": mobilenet_v2,
}


def write_tables(shape: Shape, folder: Path) -> tuple[Path, Path]:
    """The same as two tables for ``solve``; of a shape without projections, which tables know nothing of."""
    problem = shape.problem()
    ends = [shape.steps[0].source, *(step.target for step in shape.steps)]
    latency, importance = ["start,end,kernel,in_channels,out_channels,latency_ms"], dict[str, str]()
    for item in problem.items:
        read, written = (dict(item.widths).get(*ends[tensor]) for tensor in (item.start, item.end))
        block = f"{item.start},{item.end},{shape.steps[item.start].kernel if item.kind == 'keep' else item.kernel}"
        latency.append(f"{block},{read},{written},{item.latency_ns / 1e6:.6f}")
        importance[block] = f"{block},{item.value!r},,"
    for group in problem.groups:
        tensors = "|".join(str(tensor) for tensor, (key, _) in enumerate(ends) if key == group.key)
        for option in group.options:
            importance[f"{tensors} {option.channels}"] = f",,,{option.value!r},{tensors},{option.channels}"
    files = folder / "latency.csv", folder / "importance.csv"
    header = "start,end,kernel,importance,tensors,channels"
    for file, lines in zip(files, (latency, [header, *importance.values()]), strict=True):
        file.write_text("\n".join(lines) + "\n")
    return files


class _Maker:
    """Draws a problem."""

    def __init__(self, shape: Shape, shares: tuple[float, ...], random: np.random.Generator) -> None:
        self.shape, self.shares, self.random = shape, shares, random
        self.errors: dict[Operation, float] = {}
        self.worth = {step: float(random.exponential(0.02)) for step in shape.steps}

    @cached_property
    def problem(self) -> Problem:
        items = tuple(self.items())
        original = sum(self.step_ns(step, {}) for step in self.shape.steps)
        fixed = original // 20
        return Problem((len(self.shape.steps),), items, fixed, original + fixed, groups=self.groups)

    @cached_property
    def groups(self) -> tuple[WidthGroup, ...]:
        full = dict(step.target for step in self.shape.steps if step.target[0])
        return tuple(WidthGroup(key, tuple(self.options(channels))) for key, channels in full.items())

    def options(self, channels: int) -> Iterator[WidthOption]:
        scale = float(self.random.exponential(0.05))
        for share in self.shares:
            loss = scale * (1 - share) ** 1.5 * (1 + 0.1 * float(self.random.standard_normal()))
            yield WidthOption(max(1, round(channels * share)), -loss)

    def ns(self, operation: Operation) -> int:
        """Time of an operation: of its arithmetic or of its memory, whichever is longer, and of calling it."""
        error = self.errors.setdefault(operation, 1 + 0.02 * float(self.random.standard_normal()))
        inputs, outputs = (-(-channels // 8) * 8 for channels in (operation.inputs, operation.outputs))
        pixels = BATCH * (operation.size // operation.stride) ** 2
        products = pixels * outputs * operation.kernel**2 * (1 if operation.depthwise else inputs)
        moved = BATCH * operation.size**2 * inputs + pixels * outputs
        return math.ceil(error * (5000 + max(products / 20, moved / 2)))

    def step_ns(self, step: Step, widths: dict[str, int]) -> int:
        inputs, outputs = (widths.get(key, channels) for key, channels in (step.source, step.target))
        total = self.ns(Operation(inputs, outputs, step.kernel, step.stride, step.depthwise, step.size))
        if step.beside is not None:
            beside = widths.get(*step.beside)
            total += self.ns(Operation(beside, outputs, 1, 2, False, step.size * 2))
        return total

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Blocks of several layers that cut no skip in half."""
        count = len(self.shape.steps)
        for start, end in ((s, e) for s in range(count) for e in range(s + 1, min(count, s + LONGEST) + 1)):
            inside = [(start < s < end, start < e < end, s, e) for s, e in self.shape.skips]
            if not any((hid_s and e > end) or (hid_e and s < start) for hid_s, hid_e, s, e in inside):
                yield start, end

    def items(self) -> Iterator[Item]:
        for start, step in enumerate(self.shape.steps):
            named = [step.source, step.target, *([step.beside] if step.beside else [])]
            for widths in self.combinations(named):
                latency = self.step_ns(step, widths)
                yield Item(0, start, start + 1, f"keep {start + 1}", "keep", latency, 0.0, widths=tuple(widths.items()))
        for start, end in self.blocks():
            yield from self.fits(start, end)

    def fits(self, start: int, end: int) -> Iterator[Item]:
        """Fits that are faster than what they replace, and the identity."""
        steps = self.shape.steps[start:end]
        kept = sum(self.step_ns(step, {}) for step in steps)
        stride = math.prod(step.stride for step in steps)
        composed = 1
        for step in reversed(steps):
            composed = 1 + (composed - 1) * step.stride + (step.kernel - 1)
        loss = sum(self.worth[step] for step in steps) * len(steps) ** 0.5
        ends = steps[0].source, steps[-1].target
        for kernel in (0, *KERNELS):
            if kernel > composed or (kernel == 0 and (ends[0] != ends[1] or stride > 1)):
                continue
            harm = loss * (1.5 / (1 + kernel)) * float(self.random.uniform(0.5, 1.5))
            full = Operation(ends[0][1], ends[1][1], kernel, stride, False, steps[0].size)
            if kernel and (self.ns(full) >= kept or (kernel == composed and len(steps) == 1)):
                continue
            for widths in self.combinations(ends):
                inputs, outputs = (widths.get(key, channels) for key, channels in ends)
                latency = self.ns(Operation(inputs, outputs, kernel, stride, False, steps[0].size)) if kernel else 0
                key, kind = f"{start}-{end} k{kernel}", "fit" if kernel else "identity"
                yield Item(0, start, end, key, kind, latency, -harm, kernel=kernel, widths=tuple(widths.items()))

    def combinations(self, ends: Iterable[tuple[str, int]]) -> Iterator[dict[str, int]]:
        """All widths of the groups of some tensors."""
        known = {group.key: group for group in self.groups}
        keys = [key for key, _ in dict(ends).items() if key]
        for options in product(*(known[key].options for key in keys)):
            yield {key: option.channels for key, option in zip(keys, options, strict=True)}
