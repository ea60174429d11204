"""The latency of the networks that came out: interleaved with the original, in pieces that need not follow each other.

Latency depends on shapes alone, so networks that differ by their seeds are timed once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trt_layermerge.delivery.typed_onnx import typed_path
from trt_layermerge.files import parse_json, read_bytes, write_json
from trt_layermerge.latency.measure import compare

from .bench import Bench
from .ladder import SURE, Ladder
from .rows import LATENCY_SEEDS, outcome_folder

TOGETHER = 16


def timed(bench: Bench, rows: Sequence[dict[str, Any]], seconds: float) -> dict[str, dict[str, Any]]:
    """Latencies by network, in ms, each with the original's beside which it was taken; after ``seconds`` no more begin.

    On a quiet machine.
    """
    path, began, ladder = bench.folder / "final.json", time.monotonic(), Ladder(bench)
    known: dict[str, dict[str, Any]] = dict(parse_json(read_bytes(path))) if path.exists() else {}
    made = [row for row in rows if "accuracy" in row and row["network"] not in known]
    todo = list({row["network"]: row for row in made}.values())
    for begin in range(0, len(todo), TOGETHER):
        if time.monotonic() - began > seconds:
            break
        part = todo[begin : begin + TOGETHER]
        engines = {row["network"]: bench.built(*onnx_of(ladder, row)) for row in part}
        timings = compare({"original": bench.built(bench.original)} | engines, SURE)
        original = timings.pop("original")
        for network, one in timings.items():
            known[network] = {
                "latency_ms": round(one.median_ns / 1e6, 4),
                "original_ms": round(original.median_ns / 1e6, 4),
                "speedup": round(original.median_ns / one.median_ns, 4),
                "speedup_low": round(original.ci_low_ns / one.ci_high_ns, 4),
                "speedup_high": round(original.ci_high_ns / one.ci_low_ns, 4),
                "samples": one.samples,
            }
        write_json(path, known)
        print(f"timed {begin + len(part)} of {len(todo)} networks", flush=True)
    return known


def onnx_of(ladder: Ladder, row: Mapping[str, Any]) -> tuple[Path, str]:
    """The file of a row's network, and its precision; of one that was trained elsewhere, one that is alike."""
    network, precision = row["network"], "int8" if row["network"].endswith("-int8") else "fp32"
    name = network.removesuffix("-int8")
    files = [outcome_folder(ladder.bench, name, seed) / "network.onnx" for seed in LATENCY_SEEDS]
    files = [ladder.bench.original] if name == "original" else [path for path in files if path.exists()]
    return typed_path(files[0] if files else ladder.delivered(row["method"], name), precision), precision
