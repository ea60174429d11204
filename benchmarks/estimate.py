"""How good the estimate of a card that is elsewhere is: fits the constants, cross-validates them, and shows both.

Reads the tables of published measurements from a folder: ``rtx-2080-ti-mobilenetv2-1.0.csv`` to fit,
``v100-tensorrt-{fp32,fp16,int8}.csv`` and ``t4-cudnn-fp32.csv`` to see what the constants are worth on another card.
Times nothing. ``--save`` writes the fitted card, as it lies in ``trt_layermerge/estimation/devices``.

    python benchmarks/estimate.py --data FOLDER [--save FILE.toml]
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trt_layermerge.estimation.card import Card, Constants, Spread
from trt_layermerge.estimation.constants_fit import (
    CrossValidation,
    Measured,
    coverage,
    cross_validate,
    errors_on,
    fit,
    recalibrate,
)
from trt_layermerge.estimation.device_files import MEASURED, read_card, write_card
from trt_layermerge.estimation.latency_model import LatencyModel
from trt_layermerge.latency.convolution_rows import ConvolutionRows, read_convolutions

START = Constants(
    read=0.8,
    write=0.8,
    gemm=1.0,
    winograd=0.5,
    fft=0.5,
    depthwise=0.075,
    plane_ms=0.85e-3,
    torch_call_ms=0.2,
    engine_ms=0.015,
    amid_network_ms=0.002,
)
"""Where the fit begins; the first five and the call are fitted, the others are not."""

PRECISIONS = ("fp32", "fp16", "int8")
SEEDS = range(5)
PROVENANCE = (
    "Six constants fitted on 171 convolutions of MobileNetV2-1.0 (115 shapes) on one RTX 2080 Ti, TensorRT 8.4 with "
    "cuDNN, FP32, batch 128, one torch call a row, published with arXiv 2301.12187. depthwise and engine_ms are from "
    "a V100 in TensorRT; amid_network_ms is assumed. Errors of own: five folds by shape. Errors of transfer: 2,000 "
    "rows a precision of a V100 in TensorRT, none of them seen, published with a neural architecture search of Alibaba."
)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; equal values share their mean rank."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[place]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def line(label: str, errors: CrossValidation, chosen: np.ndarray | None = None) -> None:
    """Print the errors of some rows."""
    chosen = np.full(len(errors.log_error), True) if chosen is None else chosen
    relative, log_error = errors.relative[chosen], errors.log_error[chosen]
    print(
        f"| {label} | {chosen.sum()} | {np.median(relative):.1%} | {np.quantile(relative, 0.9):.1%} "
        f"| {-np.median(log_error):+.3f} |"
    )


def fastest_path(edges: list[tuple[int, int]], latency: np.ndarray) -> list[int]:
    """Rows of the fastest way from the first layer to the last over blocks (start, end]."""
    best: dict[int, tuple[float, list[int]]] = {min(edges)[0]: (0.0, [])}
    for row in sorted(range(len(edges)), key=lambda one: (edges[one][1], edges[one][0])):
        start, end = edges[row]
        if start in best and best[start][0] + latency[row] < best.get(end, (np.inf, []))[0]:
            best[end] = (best[start][0] + latency[row], [*best[start][1], row])
    return best[max(best)][1]


def plans(rows: ConvolutionRows, card: Card, found: CrossValidation) -> None:
    """The fastest plan by estimates, timed by the table; and what FFT and the call are worth in plans."""
    edges = [(int(row.cells["start"]), int(row.cells["end"])) for row in rows.rows]
    optimum, planned = (
        rows.measured_ms[fastest_path(edges, one)].sum() for one in (rows.measured_ms, found.estimated_ms)
    )
    print(f"\nFastest plan by the table {optimum:.3f} ms; by estimates out of fold {planned:.3f} ms by the table")

    def amid(library: str) -> np.ndarray:
        model = LatencyModel(card, library, "amid-network")
        return np.array([1e-6 * one.latency_ns for one in model.convolutions(rows.workloads)])

    with_fft, without = amid("tensorrt-8.4"), amid("tensorrt-10")
    blind, aware = fastest_path(edges, with_fft), fastest_path(edges, without)
    print(
        f"In one engine of TensorRT 10, by the model: the best plan of a table with FFT and calls "
        f"{without[fastest_path(edges, rows.measured_ms)].sum():.2f} ms, with FFT alone {without[blind].sum():.2f} ms, "
        f"its own {without[aware].sum():.2f} ms"
    )


def table(title: str) -> None:
    print(f"\n{title}\n\n| rows | number | median | p90 | log bias |\n|---|---|---|---|---|")


def calibrated(card: Card, rows: ConvolutionRows) -> Card:
    """Fit and cross-validate on the table of this card."""
    measured = Measured(rows.workloads, rows.measured_ms, "tensorrt-8.4", "torch-call")
    constants = fit(card.sheet, START, measured)
    print("constants:", {name: round(value, 4) for name, value in dataclasses.asdict(constants).items()})
    table("Calibration table")
    line("all, fitted on them", errors_on(card.sheet, constants, measured))
    for seed in SEEDS:
        found = cross_validate(card.sheet, START, measured, seed=seed)
        rank = spearman(found.estimated_ms, measured.latency_ms)
        line(f"all, five folds by shape, seed {seed} (Spearman {rank:.4f})", found)
    found = cross_validate(card.sheet, START, measured)
    for name in dict.fromkeys(found.algorithm):
        line(f"{name}, seed 0", found, np.array([one == name for one in found.algorithm]))
    plans(rows, dataclasses.replace(card, constants=constants), found)
    seen = coverage(measured.workloads, errors_on(card.sheet, constants, measured).algorithm)
    return dataclasses.replace(
        card,
        constants=constants,
        provenance=PROVENANCE,
        constants_of=card.sheet.name,
        timing=measured.timing,
        coverage=seen,
        own=found.spreads(),
        transfer={},
    )


def transferred(card: Card, folder: Path) -> Iterator[tuple[str, dict[str, Spread]]]:
    """What the constants say of a V100, by precision."""
    sheet = read_card("v100").sheet
    for precision in PRECISIONS:
        table(f"V100, {precision}, zero rows seen")
        rows = read_convolutions(folder / f"v100-tensorrt-{precision}.csv")
        measured = Measured(rows.workloads, rows.measured_ms, *rows.ways[0])
        found = errors_on(sheet, card.constants, measured)
        line("all", found)
        batches = np.array([one.batch for one in measured.workloads])
        for batch in np.unique(batches):
            line(f"batch {batch}", found, batches == batch)
        for name in dict.fromkeys(found.algorithm):
            line(name, found, np.array([one == name for one in found.algorithm]))
        if precision == "fp32":
            with_cudnn = dataclasses.replace(measured, library="tensorrt-8.4")
            line("all, if it had FFT", errors_on(sheet, card.constants, with_cudnn))
        yield precision, found.spreads()


def own_rows(card: Card, folder: Path) -> None:
    """What random rows of another card make of the constants, evaluated on the rows that are left."""
    print("\nRecalibrated with random rows\n\n| rows | of | taken | median | p90 | worst median | median without |")
    print("|---|---|---|---|---|---|---|")
    volta, turing = (dataclasses.replace(card, sheet=read_card(name).sheet, own={}) for name in ("v100", "t4"))
    turing = dataclasses.replace(turing, sheet=dataclasses.replace(turing.sheet, clock_ghz=1.59))
    rows = read_convolutions(folder / "v100-tensorrt-fp32.csv").measurements()
    large = rows.rows(np.array([one.batch == 128 for one in rows.workloads]))
    single = dataclasses.replace(read_convolutions(folder / "t4-cudnn-fp32.csv").measurements(), library="tensorrt-8.4")
    for count in (20, 40, 100):
        recalibrated("V100", volta, rows, count)
        recalibrated("V100, batch 128", volta, large, count)
        recalibrated("T4 at the data sheet's clock", turing, single, count)


def recalibrated(label: str, card: Card, measured: Measured, count: int, seeds: int = 16) -> None:
    """Print a line for so many random rows."""
    medians, tails, taken = [], [], 0
    for seed in range(seeds):
        chosen = np.zeros(len(measured.workloads), bool)
        chosen[np.random.default_rng(seed).choice(len(chosen), count, replace=False)] = True
        found = recalibrate(card, measured.rows(chosen), label)
        left = errors_on(card.sheet, found.card.constants, measured.rows(~chosen)).relative
        medians.append(np.median(left))
        tails.append(np.quantile(left, 0.9))
        taken += found.taken
    without = errors_on(card.sheet, card.constants, measured).median
    print(
        f"| {count} | {label} | {taken} of {seeds} | {np.mean(medians):.1%} | {np.mean(tails):.1%} "
        f"| {max(medians):.1%} | {without:.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--save", type=Path, help="write the fitted card here")
    given = parser.parse_args()
    rows = read_convolutions(given.data / "rtx-2080-ti-mobilenetv2-1.0.csv")
    card = calibrated(read_card(MEASURED), rows)
    card = dataclasses.replace(card, transfer=dict(transferred(card, given.data)))
    own_rows(card, given.data)
    table("T4, cuDNN through PyTorch, zero rows seen; its clock was chosen on them")
    rows = read_convolutions(given.data / "t4-cudnn-fp32.csv")
    line(
        "all",
        errors_on(
            read_card("t4").sheet, card.constants, Measured(rows.workloads, rows.measured_ms, "tensorrt-8.4", "engine")
        ),
    )
    if given.save is not None:
        write_card(given.save, card)


if __name__ == "__main__":
    main()
