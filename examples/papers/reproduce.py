"""The published rows of one network, one after the other, and all tables with what was measured beside.

``python examples/papers/reproduce.py resnet34 --weights FILE --task imagefolder:FOLDER`` runs ``compress`` for every
budget of that network; what else is said is said to ``compress``. ``--small`` in place of weights and data tries the
same on made images; ``--plan`` ends with the plans. Stopped, the same command goes on. Without a network it prints
the tables.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trt_layermerge.errors import ExitCode

HERE = Path(__file__).parent
PUBLISHED: dict[str, Any] = tomllib.loads((HERE / "published.toml").read_text())
CARD = "estimate:rtx-2080-ti"
SMALL = ["--runtime", CARD, "--batch", "8", "--max-layers", "6", "--max-kernel", "5", "--accept-worse"]
SMALL += ["--tuning-steps", "1", "--recipe", str(HERE / "small-recipe.toml"), "--fit-samples", "64"]
"""What makes a job of minutes of any of them, on any CPU: latencies are estimated for the card, and no measurements."""


def job(name: str, budget: float, folder: Path, small: bool, options: list[str]) -> list[str]:
    """The command of one row."""
    said = [*SMALL, *_made(name, "images", folder), "--input", "3x32x32"] if small else []
    said += ["--budget", f"{budget:g}", "--output", str(output(folder, name, budget)), *options]
    return ["compress", "--config", str(HERE / f"{name}.toml"), *said]


def planning(name: str, folder: Path, small: bool, options: list[str]) -> Iterator[list[str]]:
    """The commands that say what plan each row would take by an estimate of the card."""
    said = ["--config", str(HERE / f"{name}.toml"), "--runtime", CARD]
    said += [*_made(name, "large_images", folder), "--tuning-steps", "1", "--calibration", "2"] if small else []
    said += ["--output", str(folder / f"{name}-plan"), *options]
    yield ["importance", *said]
    for row in PUBLISHED[name]["rows"]:
        yield ["solve", *said, "--budget", f"{row['budget']:g}"]


def _made(name: str, images: str, folder: Path) -> list[str]:
    """Options that take made images and weights, and keep latencies apart from those of others."""
    task = "noisy_images" if name == "ddpm" else images
    said = ["--task", f"{HERE / 'made.py'}:{task}", "--weights", str(made_weights(folder, name))]
    return [*said, "--profiles", str(folder / "profiles")]


def made_weights(folder: Path, name: str) -> Path:
    """Where the weights lie that are made for a network."""
    return folder / f"{name}.safetensors"


def output(folder: Path, name: str, budget: float) -> Path:
    """Where a row lies."""
    return folder / f"{name}-{budget:.0%}".rstrip("%")


def run(name: str, folder: Path, small: bool, options: list[str]) -> int:
    """Compress for every budget, or for the first on made images; importance is measured once, as all budgets share it.

    A budget that no plan meets here, or only one that is far worse or slower than planned, ends nothing: the next may
    be met.

    Returns:
        The exit code of the command that failed, or 0.
    """
    measured, failed = None, 0
    for row in PUBLISHED[name]["rows"][: 1 if small else None]:
        place = output(folder, name, row["budget"])
        table = place / "importance.jsonl"
        if measured is not None and not table.exists():
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(measured, table)
        code = tell_and_run(job(name, row["budget"], folder, small, options))
        if code not in (ExitCode.DONE, ExitCode.INFEASIBLE, ExitCode.REGRESSION, ExitCode.INCONCLUSIVE):
            return code
        measured, failed = table if table.exists() else measured, failed or code
    return failed


def tell_and_run(command: list[str]) -> int:
    """Run one command of the program; its exit code."""
    print("$ trt-layermerge", *command, flush=True)
    return subprocess.run([sys.executable, "-m", "trt_layermerge.cli.main", *command]).returncode


def tables(folder: Path) -> Iterator[str]:
    """All tables as Markdown, published and measured."""
    for name, paper in PUBLISHED.items():
        quality = "top-1, %" if paper["quality"] == "accuracy" else paper["quality"]
        yield f"\n{paper['network']} (table {paper['table']}); the original: {quality} {paper['original']:.2f}\n"
        yield f"| budget | {quality} | PyTorch | TensorRT | measured | PyTorch | TensorRT | of | on |"
        yield "|---|---|---|---|---|---|---|---|---|"
        for row in paper["rows"]:
            said = [f"{row['budget']:.0%}", f"{row['quality']:.2f}", *(factor(row.get(one)) for one in RUNTIMES)]
            yield f"| {' | '.join([*said, *measured_row(output(folder, name, row['budget']))])} |"


RUNTIMES = ("pytorch", "tensorrt")


def measured_row(place: Path) -> list[str]:
    """What a finished job measured: quality, speed-ups in both runtimes, what data it is of, and on what it ran."""
    if not (place / "manifest.json").is_file():
        return ["-"] * 5
    manifest, result = (json.loads((place / name).read_text()) for name in ("manifest.json", "result.json"))
    device, figure = manifest["device"], manifest["compressed"]["accuracy"]
    quality = f"{100 * figure:.2f}" if manifest.get("metric") is None else f"{manifest['metric']} {figure:.4f}"
    also = result.get("also", {})
    told = {device["runtime"]: manifest["speedup"], also.get("runtime", ""): also.get("speedup")}
    speedups = {runtime.partition(":")[0]: speedup for runtime, speedup in told.items()}
    where = f"{device['runtime']} {device['runtime_version']}, {device['name']}: {manifest['speedup']:.2f}x"
    where += ", simulated" if manifest["simulated"] else ""
    return [quality, factor(speedups.get("torch")), factor(speedups.get("tensorrt")), manifest["task"], where]


def factor(speedup: float | None) -> str:
    """As the papers print it."""
    return "-" if speedup is None else f"{speedup:.2f}x"


def main() -> int:
    """Run a network's rows, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("network", nargs="?", choices=PUBLISHED, help="whose rows to run; none prints the tables")
    parser.add_argument("--small", action="store_true", help="the first row alone, on made images of 32x32")
    parser.add_argument("--plan", action="store_true", help="only plan, for an estimate of the card")
    parser.add_argument("--folder", type=Path, help="where jobs lie: engines/papers, or build/papers/jobs with --small")
    given, options = parser.parse_known_args()
    folder = given.folder or Path("build/papers/jobs" if given.small else "engines/papers")
    if given.network and given.small:
        from made import write_weights  # it loads torch

        settings = tomllib.loads((HERE / f"{given.network}.toml").read_text())
        write_weights(settings["model"], made_weights(folder, given.network))
    if given.network and given.plan:
        return next(filter(None, map(tell_and_run, planning(given.network, folder, given.small, options))), 0)
    code = run(given.network, folder, given.small, options) if given.network else 0
    print("\n".join(tables(folder)))
    return code


if __name__ == "__main__":
    sys.exit(main())
