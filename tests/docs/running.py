"""Runs the fenced commands of the pages as they stand, one after the other, in a scratch copy with small data.

What cannot run here has its reason in ``registry.py``. What is done is a line in a file of the folder, and a run that
was stopped goes on behind it; one that came to its end, or whose folder is removed, begins anew.

Usage: ``python -m tests.docs.running FOLDER``
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.cli.conftest import DELIVERED
from tests.docs.pages import ROOT, pages, typed
from tests.docs.registry import BEFORE, NOT_HERE, QUICKER, STANDS_FOR
from trt_layermerge.testing.runtimes import small_model

ASSETS = ROOT / "tests" / "pipeline" / "assets"
LATENCIES = "start,end,kernel,latency_ms\n0,1,3,10\n1,2,3,10\n2,3,3,10\n0,2,5,12\n1,3,5,12\n0,3,7,18\n"
IMPORTANCES = "start,end,kernel,importance\n0,1,3,0\n1,2,3,0\n2,3,3,0\n0,2,5,-0.1\n1,3,5,-0.2\n0,3,7,-0.5\n"
LIMIT_S = 1800


@dataclass(frozen=True)
class Typed:
    """A line of a page, and why it is not run here, if it is not."""

    page: str
    line: str
    reason: str | None

    @property
    def name(self) -> str:
        """In the file of what is done."""
        return f"{self.page}: {self.line}"


def all_typed() -> list[Typed]:
    """Every line that pages say to type, in order."""
    lines = [(str(page.relative_to(ROOT)), line) for page in pages() for line in typed(page)]
    return [Typed(page, line, _reason(page, line)) for page, line in lines]


def _reason(page: str, line: str) -> str | None:
    return next((why for words, why in NOT_HERE.items() if page.startswith(words) or words in line), None)


def as_run(line: str) -> str:
    """A line for bash: with what ``...`` stands for, what makes it quicker, and what a reader has done before."""
    if " ... " in f"{line} ":
        line = line.replace("...", STANDS_FOR + ("" if "--output" in line else " --output engines/mine"), 1)
    for words, more in QUICKER.items():
        line = line.replace(words, f"{words} {more}", 1)
    return next((f"{first} && {line}" for words, first in BEFORE.items() if words in line), line)


def prepare(folder: Path) -> None:
    """The scratch copy: the examples, and what a reader brings: networks, weights, data, tables."""
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("data", "__pycache__"))
    shutil.copytree(ROOT / "engines", folder / "engines", ignore=lambda *_: [])
    _write_fashion_mnist(folder / "examples" / "fashion_mnist" / "data")
    shutil.copyfile(ASSETS / "task.py", folder / "task.py")
    (folder / "models.py").write_text((ASSETS / "wide.py").read_text() + "\n\nresnet = vgg = model\n")
    made: dict[str, object] = {}
    exec((folder / "models.py").read_text(), made)  # our own file
    network: torch.nn.Module = made["resnet"]()  # type: ignore[operator]
    save_file(network.state_dict(), folder / "resnet.safetensors")
    (folder / "job.toml").write_text(
        'model = "models.py:resnet"\ntask = "task.py"\noutput = "engines/nightly"\n'
        'runtime = "estimate:rtx-2080-ti"\nepochs = 1\n'
    )
    write_tables(folder)
    onnx.save(small_model("batch"), folder / "MODEL.onnx")
    _write_photos(folder)
    write_programs(folder / "bin")


def write_tables(folder: Path) -> None:
    """Latencies and importances of three layers, as CSV."""
    (folder / "latency.csv").write_text(LATENCIES)
    (folder / "importance.csv").write_text(IMPORTANCES)


def _write_fashion_mnist(folder: Path) -> None:
    """The four files with noise in them: 5,400 images to train on and hold out, 100 to test."""
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    for part, count in (("train", 5400), ("t10k", 100)):
        images = torch.randint(256, (count, 784), generator=draw, dtype=torch.uint8)
        labels = torch.randint(10, (count,), generator=draw, dtype=torch.uint8)
        for name, header, data in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            with gzip.open(folder / f"{part}-{name}-ubyte.gz", "wb", compresslevel=1) as file:
                file.write(bytes(header) + data.numpy().tobytes())


def _write_photos(folder: Path) -> None:
    """A network for images of 224x224 as ONNX, and forty of them, for who has no labels."""
    (folder / "photos").mkdir()
    draw = torch.Generator().manual_seed(0)
    for number in range(40):
        pixels = torch.randint(256, (260, 300, 3), generator=draw, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / "photos" / f"{number}.png")
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = [torch.nn.Conv2d(3, 8, 3, stride=4, padding=1), torch.nn.ReLU()]
    layers += [torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, padding=1)]
    network = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5))
    torch.onnx.export(
        network.eval(),
        (torch.zeros(1, 3, 224, 224),),
        folder / "model.onnx",
        dynamic_shapes=[{0: "batch"}],
        external_data=False,
        verbose=False,
    )


def write_programs(folder: Path) -> None:
    """``trt-layermerge`` and ``python`` of this checkout, for the path."""
    folder.mkdir()
    for name, words in (("python", ""), ("trt-layermerge", " -m trt_layermerge.cli.main")):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} -W ignore{words} "$@"\n')
        (folder / name).chmod(0o755)


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Type a line in the scratch copy."""
    environment = os.environ | {
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
    }
    command = ["bash", "-euo", "pipefail", "-c", as_run(line)]
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"not done after {LIMIT_S} s")


def _outcomes(folder: Path) -> Iterator[tuple[Typed, bool]]:
    """Run what is not done yet, and say so."""
    done_file = folder / "done.jsonl"
    done = set(map(json.loads, done_file.read_text().splitlines())) if done_file.exists() else set()
    for one in all_typed():
        if one.reason is not None:
            print(f"not here  {one.name}\n          {one.reason}", flush=True)
            continue
        if one.name in done:
            continue
        began = time.monotonic()
        ran = run(one.line, folder)
        well = ran.returncode in (DELIVERED if " compress " in one.line else (0,))
        print(f"{'ok' if well else 'FAILED':<6}{time.monotonic() - began:4.0f} s {one.name}", flush=True)
        if not well:
            print(f"{ran.stdout}\n{ran.stderr}\nexit code {ran.returncode}", flush=True)
        else:
            with done_file.open("a") as file:
                file.write(json.dumps(one.name) + "\n")
        yield one, well


def main() -> int:
    """Run all; the exit code says whether each did what it should."""
    folder = Path(sys.argv[1]).resolve()
    if not (folder / "bin").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        prepare(folder)
    outcomes = [well for _, well in _outcomes(folder)]
    if all(outcomes):
        shutil.rmtree(folder)
    print(f"{sum(outcomes)} commands ran, {len(outcomes) - sum(outcomes)} failed")
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
