"""A denoising U-Net, made faster: how good are the images that it makes?

Trains diffusers' UNet2DModel on Fashion-MNIST (``examples/fashion_mnist/unet.py``), compresses it as a user would, by
``trt-layermerge compress``, and trains the original on for as many steps as the compressed one, for comparison. All
make images from the same seeds, by DDIM (Song et al., arXiv 2010.02502) and DDPM (arXiv 2006.11239), through ONNX
Runtime. With ``--ranges``, two plans share the time steps: one network for the noisier half, one for the other.

What is done is kept in the cache folder, and the same command goes on where it was stopped. ``--time`` measures
latencies, on a machine that does nothing else; ``--page`` writes table and pictures into docs/experiments/diffusion.md.
It needs ``pip install '.[diffusion]'``.

    python benchmarks/diffusion.py [--cache FOLDER] [--precision bf16] [--speedup X] [--ranges] [--samples N]
                                   [--samplers ddim:25 ddpm:100] [--time] [--fid WEIGHTS] [--page]
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from diffusion_page import write_page
from frechet import EXAMPLE, Images, distance_ratio, features_of, frechet_distance, inception_distance
from safetensors.torch import save_file
from torch import Tensor

from trt_layermerge.cli.show import Lines
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.verification import engine_outputs, run_engine
from trt_layermerge.files import replacing, write_json
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.network.inputs import Input, batched_shapes
from trt_layermerge.network.network import load_network
from trt_layermerge.network.source import load_source
from trt_layermerge.progress import reporting
from trt_layermerge.runtimes.base import BuildOptions, Engine
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.training.evaluate import score
from trt_layermerge.training.load_task import load_task
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.recipe import Precision, Recipe
from trt_layermerge.training.recipes import read_recipe
from trt_layermerge.training.seeds import mixed_seed

ROOT = Path(__file__).parents[1]
MODEL, TASK, TUNE = f"{EXAMPLE / 'unet.py'}:unet", EXAMPLE / "denoise.py", EXAMPLE / "denoise.toml"
COMMAND = "from trt_layermerge.cli.main import main; main()"
BATCH, AT_ONCE, HALF = 8, 128, 500
BASE = Recipe(
    steps=1600, optimizer="adam", lr=1.5e-3, weight_decay=0.0, warmup=0.05, average=0.999, clip_norm=1.0,
    channels_last=False,
)  # fmt: skip
FINAL = MeasurementPolicy(relative_ci=0.01, min_samples=100, max_seconds=12.0)
RANGES = ("late", "early")
"""Functions of the task's file: time steps below the half, and from it on."""

Models = Mapping[str, tuple[Path, ...]]
"""ONNX files by the name of the row: one, or one for each range of time steps."""


def trained(cache: Path, name: str, recipe: Recipe, start: Path | None = None) -> Path:
    """Weights of the network after a training, which is done if it was not before."""
    path = cache / f"{name}.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        network = load_source(MODEL, start).module
        with reporting(Lines()) as reporter:
            reporter.stage(f"train {name}")
            fine_tune(
                network, load_task(TASK), recipe, checkpoint=cache / f"{name}.checkpoint", progress=reporter.progress
            )
        with replacing(path) as neighbour:
            save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, neighbour)
    return path


def exported(weights: Path) -> Path:
    """Weights of the network as ONNX."""
    path = weights.with_suffix(".onnx")
    if not path.exists():
        network = load_network(MODEL, weights)
        export_onnx(network.module, network.inputs, path)
    return path


def compressed(cache: Path, weights: Path, speedup: float, task: str = "task", steps: int | None = None) -> Path:
    """The network compressed by the command, as ONNX; what latencies and importance there are is used again."""
    folder = cache / f"{task}-{speedup:g}x"
    if not (folder / "result.json").exists():
        recipe = cache / f"{task}-{speedup:g}x.toml"
        text = TUNE.read_text()
        recipe.write_text(text if steps is None else re.sub(r"(?m)^steps = .*$", f"steps = {steps}", text))
        shared = ("importance.jsonl", "baseline.json")  # the same for every speed-up
        for table in shared:
            share(cache / f"{task}-{table}", folder / table)
        options = {
            "weights": weights, "task": f"{TASK}:{task}", "speedup": speedup, "recipe": recipe, "output": folder,
            "profiles": cache / "profiles", "batch": BATCH, "widths": "1.0", "calibration": 512, "held-out": 512,
            "fit-samples": 1024, "cpu-threads": 1,
        }  # fmt: skip
        given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        subprocess.run([sys.executable, "-W", "ignore", "-c", COMMAND, "compress", MODEL, *given], check=True)
        for table in shared:
            share(folder / table, cache / f"{task}-{table}")
    return folder / "compressed.onnx"


def share(source: Path, target: Path) -> None:
    """Copy a file that is there."""
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())


def engine(path: Path, batch: int) -> Engine:
    """A network in ONNX Runtime, for one thread."""
    return get_runtime("onnxruntime").build(path, BuildOptions(), batched_shapes(inputs(), batch))


@functools.cache
def inputs() -> tuple[Input, ...]:
    """What the network takes."""
    return load_network(MODEL).inputs


def made(engines: Sequence[Engine], sampler: str, steps: int, seed: int, count: int) -> Tensor:
    """Images ``[count, 1, 28, 28]`` from noise; the engines share the time steps, the last one has the noisiest."""
    from diffusers import DDIMScheduler, DDPMScheduler

    generator = torch.Generator().manual_seed(seed)
    scheduler = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler}[sampler](num_train_timesteps=1000)
    scheduler.set_timesteps(steps)
    images = torch.randn(count, 1, 28, 28, generator=generator)
    for time in scheduler.timesteps:
        which = engines[int(time) * len(engines) // 1000]
        noise = run_engine(which, (images, torch.full((count,), int(time))))
        assert isinstance(noise, Tensor)
        images = scheduler.step(noise, time, images, generator=generator).prev_sample
    return images


def samples(cache: Path, name: str, paths: tuple[Path, ...], sampler: str, count: int) -> Images:
    """Images that a network makes, as many at a time as are kept in one file."""
    kind, _, steps = sampler.partition(":")
    folder = cache / "samples" / f"{name.replace(' ', '-')}-{kind}-{steps}"
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.npy" for number in range(-(-count // AT_ONCE))]
    engines: list[Engine] = []
    for number, file in enumerate(files):
        if not file.exists():
            engines = engines or [engine(path, AT_ONCE) for path in paths]
            images = made(engines, kind, int(steps), mixed_seed(7, number), AT_ONCE)
            with replacing(file) as neighbour, neighbour.open("wb") as out:
                np.save(out, images.numpy())
            print(f"{name}, {sampler}: {number + 1} of {len(files)} parts", file=sys.stderr)
    return np.concatenate([np.load(file) for file in files])[:count]


def scores(cache: Path, models: Models, args: argparse.Namespace) -> dict[str, Any]:
    """Of each network and sampler: distances of its images to the 10,000 of the test data, and its noise's error."""
    sys.path.insert(0, str(EXAMPLE))
    from denoise import images as images_of

    real = images_of("test").tensors[0].numpy()
    others = images_of("train").tensors[0][: args.samples].numpy()
    aim = features_of(real)
    found: dict[str, Any] = {"real images": frechet_distance(features_of(others), aim), "samples": args.samples}
    for sampler in args.samplers:
        made_by = {name: samples(cache, name, paths, sampler, args.samples) for name, paths in models.items()}
        features = {name: features_of(images) for name, images in made_by.items()}
        for name, images in made_by.items():
            row = {
                "distance": frechet_distance(features[name], aim),
                "ratio": distance_ratio(features[name], features["original"], aim),
            }
            if args.fid is not None:
                row["fid"] = inception_distance(images, real, args.fid)
            found.setdefault(name, {})[sampler] = row
    for name, paths in models.items():
        if len(paths) == 1:
            task = load_task(TASK)
            found[name]["mse"] = score(engine_outputs(engine(paths[0], 32), task.test_batches()), task).loss
    return found


def timed(models: Models) -> dict[str, Any]:
    """Latencies of one evaluation, in ms with their 95 % intervals, all networks interleaved."""
    engines = {path: engine(path, BATCH) for paths in models.values() for path in paths}
    timings = compare({str(path): one for path, one in engines.items()}, FINAL)
    found = {}
    for name, paths in models.items():
        own = [timings[str(path)] for path in paths]
        sums = (sum(getattr(one, of) for one in own) for of in ("median_ns", "ci_low_ns", "ci_high_ns"))
        found[name] = [value / len(own) / 1e6 for value in sums]
    return found


def networks(args: argparse.Namespace) -> Models:
    """All networks, made if they are not there yet."""
    cache, tune = args.cache, read_recipe(str(TUNE))
    weights = trained(cache, "unet", replace(BASE, precision=args.precision))
    models = {"original": (exported(weights),)}
    for speedup in args.speedup:
        models[f"compressed {speedup:g}x"] = (compressed(cache, weights, speedup),)
    if args.ranges:
        for speedup in args.speedup:
            halves = (compressed(cache, weights, speedup, name, (tune.steps or 2) // 2) for name in RANGES)
            models[f"two plans {speedup:g}x"] = tuple(halves)
    if not args.no_control:
        models["original trained on"] = (exported(trained(cache, "unet-longer", tune, weights)),)
    return models


def arguments(given: Iterable[str] | None = None) -> argparse.Namespace:
    """What may be changed from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "diffusion", help="where everything is kept")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32", help="of the first training")
    parser.add_argument("--speedup", type=float, nargs="+", default=[1.6])
    parser.add_argument("--ranges", action="store_true", help="one plan for each half of the time steps, too")
    parser.add_argument("--no-control", action="store_true", help="do not train the original on")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--samplers", nargs="+", default=["ddim:25", "ddpm:100"], help="kind:steps")
    parser.add_argument("--time", action="store_true", help="measure latencies, again")
    parser.add_argument("--fid", type=Path, help="FID too, with these weights of torch-fidelity's InceptionV3")
    parser.add_argument("--page", action="store_true", help="write docs/experiments/diffusion.md")
    return parser.parse_args(given)


def main() -> None:
    """Make what is missing; then measure, score, and write the page."""
    args = arguments()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    args.cache.mkdir(parents=True, exist_ok=True)
    models = networks(args)
    if args.time:
        write_json(args.cache / "latency.json", timed(models))
        return
    found = scores(args.cache, models, args)
    write_json(args.cache / "scores.json", found)
    print(json.dumps(found, indent=2))
    if args.page:
        latencies = json.loads((args.cache / "latency.json").read_bytes())
        pictures = {
            name: samples(args.cache, name, paths, args.samplers[0], args.samples) for name, paths in models.items()
        }
        write_page(found, latencies, pictures, args.samplers)


if __name__ == "__main__":
    main()
