"""A denoising U-Net, made faster: how good are the images that it makes?

Trains diffusers' UNet2DModel on Fashion-MNIST (``examples/fashion_mnist/unet.py``), plans as a user would, by
``trt-layermerge importance`` and ``solve``, and trains each compressed network to say what the original does of noisy
images, as ``graphed_denoising.py`` has it; the original is trained on for as many steps, for comparison. All make
images from the same seeds, by DDIM (Song et al., arXiv 2010.02502) and DDPM (arXiv 2006.11239). With ``--ranges``, two
plans share the time steps: one network for the noisier half, one for the other; with ``--ranges-trained-on`` they are
of the same commands on the original, but carried out on the one that was trained on, which is their teacher.

What is done is kept in the cache folder, and the same command goes on where it was stopped. Training takes minutes on a
GPU. ``--time`` measures latencies in ONNX Runtime, on a machine that does nothing else; ``--page`` writes table and
pictures into docs/experiments/diffusion.md. It needs ``pip install '.[diffusion]'``.

    python benchmarks/diffusion.py [--cache FOLDER] [--speedup X] [--ranges LATE EARLY] [--ranges-trained-on LATE EARLY]
                                   [--steps N] [--batch N] [--no-control]
                                   [--samplers ddim:50:7:5000 ddpm:1000:7:1000] [--time] [--fid WEIGHTS] [--page]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graphed_denoising
import numpy as np
from diffusion_page import write_page
from frechet import EXAMPLE, distance_ratio, features_of, frechet_distance, inception_distance, moments

from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.files import write_json
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.network.device import CPU
from trt_layermerge.network.inputs import Input, batched_shapes
from trt_layermerge.network.network import load_network
from trt_layermerge.runtimes.base import BuildOptions, Engine
from trt_layermerge.runtimes.registry import get_runtime

ROOT = Path(__file__).parents[1]
MODEL, TASK = f"{EXAMPLE / 'unet.py'}:deep_unet", EXAMPLE / "denoise.py"
COMMAND = "from trt_layermerge.cli.main import main; main()"
BATCH = 8
FINAL = MeasurementPolicy(relative_ci=0.01, min_samples=100, max_seconds=12.0)
RANGES = {"late": (0, 500), "early": (500, 1000)}
"""Functions of the task's file, and their time steps."""
SAMPLERS = ("ddim:50:7:5000", "ddpm:1000:7:1000")
"""Kind, steps, seed, and number of images."""
REAL = 5000
"""Of the training images, whose distance is what is left to be had."""
SETTINGS = ("--cooled", "--average", "0.999", "--half")
WEIGHED = ("--heaviest", "5")
"""Of compressed networks: for all time steps that was better than to weigh all alike, by images of another seed."""
KEPT = 64
"""Images of each network and sampler that are kept as such; of the others their features are."""


@dataclass(frozen=True)
class Trained:
    """A network of the table, or the half of one.

    Attributes:
        weights: After training.
        original: Weights of the network that it was made from; ``None`` for that itself.
        plan: What was made of it.
    """

    weights: Path
    original: Path | None = None
    plan: Path | None = None


Rows = Mapping[str, tuple[Trained, ...]]
"""By the name of the row: one network, or one for each range of time steps, that of the noisiest last."""


def trained(cache: Path, name: str, steps: int, *words: str) -> Path:
    """Weights of the network after a training, which is done if it was not before."""
    path, about = cache / f"{name}.safetensors", cache / f"{name}.json"
    if not about.exists() or "held_out_mse" not in json.loads(about.read_bytes()):
        told = ["train", name, "--out", str(cache), "--model", MODEL, *SETTINGS, "--steps", str(steps), *words]
        graphed_denoising.main(told)
    return path


def planned(cache: Path, weights: Path, task: str, speedup: float) -> Path:
    """A plan by the commands; what latencies and importance there are is used again."""
    folder = cache / f"{task}-{speedup:g}x"
    if not (folder / "plan.json").exists():
        shared = ("importance.jsonl", "baseline.json")  # the same for every speed-up
        for table in shared:
            share(cache / f"{task}-{table}", folder / table)
        place = ["--weights", weights, "--profiles", cache / "profiles", "--batch", BATCH, "--widths", "1.0"]
        data = ["--task", f"{TASK}:{task}", "--output", folder, "--calibration", 256, "--held-out", 256]
        for told in (["profile", MODEL, *place], ["importance", MODEL, *place, *data],
                     ["solve", MODEL, *place, *data, "--speedup", speedup]):  # fmt: skip
            subprocess.run([sys.executable, "-W", "ignore", "-c", COMMAND, *map(str, told)], check=True)
        for table in shared:
            share(folder / table, cache / f"{task}-{table}")
    return folder / "plan.json"


def share(source: Path, target: Path) -> None:
    """Copy a file that is there."""
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())


def rows(args: argparse.Namespace) -> Rows:
    """All networks, made if they are not there yet."""
    cache, steps, batch = args.cache, args.steps, ("--batch", str(args.batch))
    original = trained(cache, "original", steps, *batch)
    found = {"original": (Trained(original),)}

    def compressed(task: str, speedup: float, *words: str, teacher: Path = original) -> Trained:
        plan = planned(cache, original, task, speedup)
        told = ["--weights", str(teacher), "--teacher", str(teacher), "--plan", str(plan), *words, *batch]
        name = f"{task}-{speedup:g}x" + (f"-{teacher.stem}" if teacher != original else "")
        return Trained(trained(cache, name, steps, *told), teacher, plan)

    def halves(speedups: Iterable[float], *words: str, teacher: Path = original) -> tuple[Trained, ...]:
        return tuple(
            compressed(task, speedup, "--range", *map(str, part), *words, teacher=teacher)
            for (task, part), speedup in zip(RANGES.items(), speedups, strict=True)
        )

    for speedup in args.speedup:
        found[f"compressed {speedup:g}x"] = (compressed("task", speedup, *WEIGHED),)
    if args.ranges:
        found[f"two plans {listed(args.ranges)}"] = halves(args.ranges, *WEIGHED)
    if not args.no_control:
        start = ["--weights", str(original), "--start", str(original), *batch]
        control = trained(cache, "control", steps, *start)
        found["original trained on"] = (Trained(control),)
        if speedups := args.ranges_trained_on:
            found[f"two plans {listed(speedups)} of the one trained on"] = halves(speedups, *WEIGHED, teacher=control)
    return found


def listed(speedups: Iterable[float]) -> str:
    """Speed-ups in the name of a row."""
    return " ".join(f"{speedup:g}x" for speedup in speedups)


def samples(args: argparse.Namespace, name: str, made_of: tuple[Trained, ...], sampler: str) -> dict[str, Any]:
    """Features ``[samples, 64]`` of images that a network makes, and the first of these, or all for an FID."""
    (kind, steps, seed, count), cache = sampler.split(":"), args.cache / "samples"
    kept = int(count) if args.fid else KEPT
    file = cache / f"{name.replace(' ', '-')}-{kind}-{steps}-seed{seed}.npz"
    if file.exists():
        with np.load(file) as found:
            if len(found["features"]) >= int(count) and len(found["images"]) >= kept:
                return {key: found[key][: int(count)] for key in ("features", "images")}
        file.unlink()
    told = ["sample", name.replace(" ", "-"), "--out", str(cache), "--sampler", sampler, "--kept", str(kept)]
    told += ["--model", MODEL, "--weights", str(made_of[0].original or made_of[0].weights)]
    if made_of[0].plan is not None:
        told += ["--plan", *(str(one.plan) for one in made_of), "--trained", *(str(one.weights) for one in made_of)]
    graphed_denoising.main(told)
    return samples(args, name, made_of, sampler)


def images_of(part: str) -> Any:
    """``train`` or ``test`` as an array ``[n, 1, 28, 28]`` in -1..1."""
    sys.path.insert(0, str(EXAMPLE))
    from denoise import images

    return images(part).tensors[0].numpy()


def real_features(cache: Path) -> tuple[Any, Any]:
    """Those of the test images, and of the first training images."""
    file = cache / "real.npz"
    if not file.exists():
        np.savez(file, test=features_of(images_of("test")), train=features_of(images_of("train")[:REAL]))
    with np.load(file) as found:
        return found["test"], found["train"]


def scores(args: argparse.Namespace, models: Rows) -> dict[str, Any]:
    """Of each network and sampler: distances of its images to the 10,000 of the test data, and its noise's error."""
    aim, others = (moments(features) for features in real_features(args.cache))
    found: dict[str, Any] = {"real images": frechet_distance(others, aim), "samples": REAL}
    for sampler in args.samplers:
        made_by = {name: samples(args, name, made_of, sampler) for name, made_of in models.items()}
        base = made_by["original"]["features"].astype(float)
        for name, made in made_by.items():
            ours = made["features"].astype(float)
            row = {"distance": frechet_distance(moments(ours), aim), "ratio": distance_ratio(ours, base, aim)}
            if args.fid is not None:
                row["fid"] = inception_distance(made["images"] / np.float32(127.5) - 1, images_of("test"), args.fid)
            found.setdefault(name, {})[sampler] = row
    for name, made_of in models.items():
        if len(made_of) == 1:
            about = json.loads(made_of[0].weights.with_suffix(".json").read_bytes())
            found[name] |= {"mse": about["held_out_mse"]["all"], "steps": about["progress"][-1]["steps"]}
    return found


def exported(one: Trained) -> Path:
    """A network as ONNX, its norms folded."""
    path = one.weights.with_suffix(".onnx")
    if not path.exists():
        module = graphed_denoising.built(MODEL, one.original or one.weights, one.plan, CPU, one.weights)
        export_onnx(fold_norms(module), inputs(), path)
    return path


@functools.cache
def inputs() -> tuple[Input, ...]:
    """What the network takes."""
    return load_network(MODEL).inputs


def engine(path: Path, batch: int) -> Engine:
    """A network in ONNX Runtime, for one thread."""
    return get_runtime("onnxruntime").build(path, BuildOptions(), batched_shapes(inputs(), batch))


def timed(models: Rows) -> dict[str, Any]:
    """Latencies of one evaluation, in ms with their 95 % intervals, all networks interleaved."""
    (original,) = models["original"]  # which stands for itself with other weights, too
    paths = {
        name: [exported(original if one.plan is None else one) for one in made_of] for name, made_of in models.items()
    }
    engines = {str(path): engine(path, BATCH) for several in paths.values() for path in several}
    timings = compare(engines, FINAL)
    found = {}
    for name, several in paths.items():
        own = [timings[str(path)] for path in several]
        sums = (sum(getattr(one, of) for one in own) for of in ("median_ns", "ci_low_ns", "ci_high_ns"))
        found[name] = [value / len(own) / 1e6 for value in sums]
    return found


def arguments(given: Iterable[str] | None = None) -> argparse.Namespace:
    """What may be changed from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "diffusion", help="where everything is kept")
    parser.add_argument("--speedup", type=float, nargs="*", default=[1.5])
    parser.add_argument("--ranges", type=float, nargs=2, help="two plans too, of these speed-ups")
    parser.add_argument("--ranges-trained-on", type=float, nargs=2, help="likewise, of the original trained on")
    parser.add_argument("--steps", type=int, default=10_000, help="of each training")
    parser.add_argument("--batch", type=int, default=128, help="images of a step")
    parser.add_argument("--no-control", action="store_true", help="do not train the original on")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, help="kind:steps:seed:samples")
    parser.add_argument("--time", action="store_true", help="measure latencies, again")
    parser.add_argument("--fid", type=Path, help="FID too, with these weights of torch-fidelity's InceptionV3")
    parser.add_argument("--page", action="store_true", help="write docs/experiments/diffusion.md")
    return parser.parse_args(given)


def main() -> None:
    """Make what is missing; then measure, score, and write the page."""
    args = arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    args.cache.mkdir(parents=True, exist_ok=True)
    models = rows(args)
    if args.time:
        write_json(args.cache / "latency.json", timed(models))
        return
    found = scores(args, models)
    write_json(args.cache / "scores.json", found)
    print(json.dumps(found, indent=2))
    if args.page:
        latencies = json.loads((args.cache / "latency.json").read_bytes())
        first = args.samplers[0]
        pictures = {name: samples(args, name, made_of, first)["images"] for name, made_of in models.items()}
        write_page(found, latencies, pictures, args.samplers)


if __name__ == "__main__":
    main()
