"""Fitting a card's constants to measured latencies, and how good fits are on shapes that they have not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp

import numpy as np
from numpy.typing import NDArray

from trt_layermerge.errors import InputError
from trt_layermerge.estimation.card import (
    Algorithm,
    Card,
    Constants,
    Coverage,
    DeviceSheet,
    Spread,
    TimingMode,
    overhead_field,
)
from trt_layermerge.estimation.formulas import Column, Shapes, gpu_ms
from trt_layermerge.estimation.robust import least_squares, soft_l1
from trt_layermerge.estimation.tactic_sources import algorithms_of
from trt_layermerge.estimation.workload import Workload

FITTED = ("read", "write", "gemm", "winograd", "fft")
"""Fitted together with the timing mode's overhead."""

SCALE = 0.03
"""Logarithm of measured over estimated at which squares turn into straight lines."""

NOISE_SD = 0.2
"""Of the logarithms of a card's latencies about their formulas, as a prior on constants sees it."""

PRIOR_SD = 0.3
"""Of the logarithms of constants from card to card."""

LEAST_ROWS = 20
"""Recalibration with fewer can hurt."""

FOLDS = 5
LEAST_SPREAD_ROWS = 8


@dataclass(frozen=True)
class Measured:
    """Measured latencies of convolutions.

    Attributes:
        workloads: The convolutions.
        latency_ms: Their latencies, ``[rows]``.
        library: What ran them.
        timing: How they were timed.
    """

    workloads: tuple[Workload, ...]
    latency_ms: Column
    library: str
    timing: TimingMode

    def rows(self, chosen: NDArray[np.bool_]) -> Measured:
        """The rows at these places."""
        kept = tuple(one for one, keep in zip(self.workloads, chosen, strict=True) if keep)
        return replace(self, workloads=kept, latency_ms=self.latency_ms[chosen])


@dataclass(frozen=True)
class CrossValidation:
    """Every row, estimated by a fit that has not seen its shape.

    Attributes:
        log_error: Logarithm of measured over estimated, ``[rows]``.
        estimated_ms: ``[rows]``.
        algorithm: The fastest by the fit, by row.
    """

    log_error: Column
    estimated_ms: Column
    algorithm: tuple[Algorithm, ...]

    @property
    def relative(self) -> Column:
        """Estimated over measured, less 1, without its sign, ``[rows]``."""
        return np.abs(np.expm1(-self.log_error))

    @property
    def median(self) -> float:
        """Median relative error."""
        return float(np.median(self.relative))

    @property
    def loss(self) -> float:
        """What fits minimise, a row."""
        return float(soft_l1(self.log_error, SCALE).mean())

    def spreads(self) -> dict[Algorithm, Spread]:
        """Errors by algorithm, where there are rows enough for an interval."""
        found: dict[Algorithm, Spread] = {}
        for name in dict.fromkeys(self.algorithm):
            errors = np.sort(self.log_error[np.array([one == name for one in self.algorithm])])
            if len(errors) >= LEAST_SPREAD_ROWS:
                found[name] = _spread(errors)
        return found


@dataclass(frozen=True)
class Recalibration:
    """What a user's own rows made of a card.

    Attributes:
        card: With the fitted constants where they won, else as it was.
        taken: Whether they won.
        rows: How many rows there were.
        before: Median relative error of the card as it was.
        after: That of fits on shapes that they had not seen.
    """

    card: Card
    taken: bool
    rows: int
    before: float
    after: float


def fit(sheet: DeviceSheet, start: Constants, measured: Measured, *, prior: bool = False) -> Constants:
    """Fit the constants, and the overhead of the timing mode, by robust least squares on logarithms of latencies.

    Args:
        sheet: The data sheet.
        start: Where to begin; what is not fitted stays as it is.
        measured: Latencies.
        prior: Pull the constants to ``start``, as is right where that is a fit on another card and rows are few.
    """
    names = (*FITTED, overhead_field(measured.timing))
    shapes, target = Shapes.of(measured.workloads, sheet), np.log(measured.latency_ms)

    def constants(logs: Column) -> Constants:
        return replace(start, **{name: exp(value) for name, value in zip(names, np.clip(logs, -30, 30), strict=True)})

    def residuals(logs: Column) -> Column:
        return np.asarray(np.log(_total(shapes, sheet, constants(logs), measured)[0]) - target)

    begin = np.log([getattr(start, name) for name in names])
    return constants(least_squares(residuals, begin, SCALE, (NOISE_SD / PRIOR_SD) ** 2 if prior else 0.0))


def errors_on(sheet: DeviceSheet, constants: Constants, measured: Measured) -> CrossValidation:
    """How constants that have seen none of the rows estimate them."""
    total, algorithm = _total(Shapes.of(measured.workloads, sheet), sheet, constants, measured)
    return CrossValidation(np.log(measured.latency_ms / total), total, algorithm)


def cross_validate(
    sheet: DeviceSheet, start: Constants, measured: Measured, *, prior: bool = False, seed: int = 0
) -> CrossValidation:
    """Fit in five folds; rows of one shape are in one fold, for a fit that has seen a shape knows its other rows."""
    fold = _folds(measured.workloads, seed)
    log_error, estimated = np.empty(len(fold)), np.empty(len(fold))
    algorithm: dict[int, Algorithm] = {}
    for number in range(FOLDS):
        out = fold == number
        if not out.any():
            continue
        found = errors_on(sheet, fit(sheet, start, measured.rows(~out), prior=prior), measured.rows(out))
        log_error[out], estimated[out] = found.log_error, found.estimated_ms
        algorithm |= dict(zip(np.flatnonzero(out).tolist(), found.algorithm, strict=True))
    return CrossValidation(log_error, estimated, tuple(algorithm[row] for row in range(len(fold))))


def coverage(workloads: Sequence[Workload], algorithm: Sequence[Algorithm]) -> dict[Algorithm, Coverage]:
    """What rows there were, by algorithm."""
    found: dict[Algorithm, Coverage] = {}
    for name in dict.fromkeys(algorithm):
        rows = [one for one, used in zip(workloads, algorithm, strict=True) if used == name]
        found[name] = Coverage(
            kernel=_bounds([side for one in rows for side in one.kernel]),
            batch=_bounds([one.batch for one in rows]),
            channels=_bounds([channels for one in rows for channels in (one.in_channels, one.out_channels)]),
            pixels=_bounds([one.pixels for one in rows]),
        )
    return found


def recalibrate(card: Card, measured: Measured, source: str) -> Recalibration:
    """Pull a card's constants to a user's own rows, where that wins in cross-validation.

    Args:
        card: With constants of whichever card.
        measured: The user's rows, of FP32 convolutions.
        source: Where they are from, for the card's provenance.

    Raises:
        InputError: There are too few rows.
    """
    rows = len(measured.workloads)
    if rows < LEAST_ROWS:
        raise InputError(
            f"recalibration needs {LEAST_ROWS} rows of FP32 convolutions, and {source} has {rows}",
            hint="fewer can make estimates worse; measure more of the network's candidate blocks",
        )
    sheet, start = card.sheet, card.constants
    before = errors_on(sheet, start, measured)
    after = cross_validate(sheet, start, measured, prior=True)
    summary = Recalibration(card, False, rows, before.median, after.median)
    if after.loss >= before.loss or after.median >= before.median:  # fits gain on their worst rows at others' cost
        return summary
    constants = fit(sheet, start, measured, prior=True)
    own, seen = after.spreads(), coverage(measured.workloads, errors_on(sheet, constants, measured).algorithm)
    better = replace(
        card,
        constants=constants,
        provenance=f"{rows} rows of {source}, pulled to: {card.provenance}",
        constants_of=sheet.name,
        timing=measured.timing,
        coverage={**card.coverage, **{name: seen[name] for name in own if name in seen}},
        own=own,
    )
    return replace(summary, card=better, taken=True)


def _total(
    shapes: Shapes, sheet: DeviceSheet, constants: Constants, measured: Measured
) -> tuple[Column, tuple[Algorithm, ...]]:
    times = gpu_ms(shapes, sheet, constants)
    names = [name for name in algorithms_of(measured.library) if name in times]
    table = np.stack([times[name] for name in names])
    overhead = constants.overhead_ms(measured.timing)
    return overhead + table.min(axis=0), tuple(names[index] for index in table.argmin(axis=0))


def _folds(workloads: Sequence[Workload], seed: int) -> NDArray[np.int64]:
    shapes: Mapping[Workload, int] = {one: number for number, one in enumerate(dict.fromkeys(workloads))}
    order = np.random.default_rng(seed).permutation(len(shapes))
    return np.array([order[shapes[one]] % FOLDS for one in workloads])


def _spread(errors: Column) -> Spread:
    """Of sorted errors: order statistics that a further row lies outside of with 5 % probability on either side."""
    beyond = max(int(0.05 * (len(errors) + 1)) - 1, 0)
    relative = np.abs(np.expm1(-errors))
    return Spread(
        rows=len(errors),
        median=float(np.median(relative)),
        p90=float(np.quantile(relative, 0.9)),
        low=min(float(errors[beyond]), 0.0),
        high=max(float(errors[-1 - beyond]), 0.0),
    )


def _bounds(values: Sequence[int]) -> tuple[int, int]:
    return min(values), max(values)
