"""The command; the package says what it does."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trt_layermerge.delivery.manifest import git_state
from trt_layermerge.errors import LayerMergeError
from trt_layermerge.files import parse_json, read_bytes, write_json
from trt_layermerge.versions import versions

from . import __doc__ as about
from .bench import Bench, one_thread
from .cases import CASES
from .final_timing import timed
from .ladder import Ladder
from .page import RESULTS, write_page
from .registry import METHODS
from .rows import Maker, rows_of
from .ruled import whole_blocks
from .standings import repeated

STAGES = ("profile", "tables", "shapes", "climb", "trials", "rows", "time", "compare", "publish", "page")
UNASKED = tuple(stage for stage in STAGES if stage != "publish")
"""What is done if no stage is named: committed results are read, not written."""


def arguments() -> argparse.Namespace:
    """What may be said on the command line."""
    parser = argparse.ArgumentParser(
        "benchmarks.methods", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES), help="networks")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--budget", nargs="+", type=float, help="how many times as fast; those of the network")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=UNASKED, help="all but publish")
    parser.add_argument("--device", default="cpu", help="where torch computes (cpu, cuda, auto); engines are the CPU's")
    parser.add_argument("--seconds", type=float, default=600.0, help="after which the stage time begins no more")
    return parser.parse_args()


def main() -> None:
    """Do the stages that are asked for."""
    args = arguments()
    one_thread()
    for name in args.only:
        bench = Bench(name, CASES[name], args.device)
        bench.folder.mkdir(parents=True, exist_ok=True)
        if "profile" in args.stage:
            bench.profile()
        if "tables" in args.stage:
            bench.importance(also=whole_blocks(bench))
        if "shapes" in args.stage:
            Ladder(bench).make(args.methods)
        if "climb" in args.stage:
            Ladder(bench).climb(args.methods, args.budget)
        if "trials" in args.stage:
            Maker(bench).settle(args.methods, args.budget)
        if "rows" in args.stage:
            Maker(bench).make_all(rows_of(bench, args.methods, args.budget, args.seeds))
        if "time" in args.stage:
            collect(bench, args.seconds)
        if "compare" in args.stage:
            compare(bench)
        if "publish" in args.stage:
            write_json(committed(bench), parse_json(read_bytes(results_of(bench))))
    if "page" in args.stage:
        write_page()


def collect(bench: Bench, seconds: float) -> None:
    """Time all rows that there are, whoever asked for them, and write them down with the machine that they are of."""
    rows = [dict(parse_json(read_bytes(path))) for path in sorted((bench.trained / "rows").glob("*.json"))]
    latencies = timed(bench, rows, seconds)
    device, original = bench.widest.profile.key.device, latencies_of_original(latencies)
    costs = parse_json(read_bytes(bench.folder / "costs.json"))
    date = datetime.now(UTC).date().isoformat()
    write_json(
        results_of(bench),
        {
            "about": f"{date}, {device.name}, {device.runtime} {device.runtime_version}, batch {bench.case.batch}, "
            f"one thread; networks interleaved with the original.",
            "date": date,
            "device": device.name,
            "versions": versions(),
            "commit": git_state(),
            "original": {"accuracy": round(bench.test(bench.widest.network.module), 5), "latency_ms": original},
            "cpu_seconds": costs,
            "rows": [row | latencies.get(row.get("network", ""), {}) for row in rows],
        },
    )


def compare(bench: Bench) -> None:
    """Say of each row whether it repeats the committed one."""
    if results_of(bench).exists() and committed(bench).exists():
        made, known = (parse_json(read_bytes(path)) for path in (results_of(bench), committed(bench)))
        print("\n".join(repeated(made, known)), flush=True)


def results_of(bench: Bench) -> Path:
    """All that was made here."""
    return bench.folder / "results.json"


def committed(bench: Bench) -> Path:
    """What its page is made from."""
    return RESULTS / f"{bench.name}.json"


def latencies_of_original(latencies: dict[str, dict[str, Any]]) -> float:
    """Its median over the pieces, in ms."""
    found = sorted(one["original_ms"] for one in latencies.values())
    return float(found[len(found) // 2]) if found else 0.0


if __name__ == "__main__":
    try:
        main()
    except LayerMergeError as error:
        sys.exit(f"error: {error}")
