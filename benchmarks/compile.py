"""How long NVIDIA's compiler takes for what we deliver: original and compressed networks for SM75, INT8 for SM86.

TensorRT-RTX compiles on any machine; nothing runs here, and no latency is measured. Weights are random, and so are the
plans. Needs the extras ``tensorrt-rtx`` and ``zoo``.

    python benchmarks/compile.py [--only NAME] [--precision fp16] [--plans 1]
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

import torch
from random_plans import random_plan, randomise_norms
from torch import nn

from trt_layermerge.delivery.export import INPUT, export_onnx
from trt_layermerge.delivery.typed_onnx import write_typed
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.network import load_network
from trt_layermerge.runtimes.base import PRECISIONS, BuildOptions
from trt_layermerge.runtimes.registry import get_runtime

NETWORKS = ("torchvision:mobilenet_v2", "torchvision:resnet34")
SHAPE, BATCH, IMAGES = (3, 224, 224), 8, 16


def compile_one(name: str, module: nn.Module, precisions: tuple[str, ...], folder: Path) -> None:
    """Print a line for each precision."""
    source = folder / "network.onnx"
    export_onnx(fold_norms(module), SHAPE, source)
    images = torch.randn(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0))
    for precision in precisions:
        begin = time.perf_counter()
        typed = write_typed(source, precision, list(torch.split(images, 4)))
        converted = time.perf_counter()
        shapes = {INPUT: (BATCH, *SHAPE)}
        runtime = get_runtime(f"tensorrt-rtx:{'sm86' if precision == 'int8' else 'sm75'}")  # SM75 has no INT8 there
        runtime.build(typed.path, BuildOptions(precision=precision), shapes).save(folder / "engine")
        end = time.perf_counter()
        size = os.path.getsize(folder / "engine") / 2**20
        full = sum(layer.full for layer in typed.layers)
        print(
            f"{name:<38} {precision:<5} compiled in {end - converted:5.1f} s, {size:6.1f} MiB; "
            f"converted and checked in {converted - begin:5.1f} s, error {typed.error:.1e}, {full} layers in FP32",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="names of networks must contain this")
    parser.add_argument("--precision", choices=PRECISIONS, help="only this one")
    parser.add_argument("--plans", type=int, default=1, help="random plans of each network")
    given = parser.parse_args()
    precisions = (given.precision,) if given.precision else PRECISIONS
    with tempfile.TemporaryDirectory() as folder:
        for spec in (spec for spec in NETWORKS if given.only in spec):
            torch.manual_seed(0)
            network = load_network(spec, None, SHAPE)
            randomise_norms(network.module)
            compile_one(f"{spec} original", network.module, precisions, Path(folder))
            for number in range(given.plans):
                plan = random_plan(network, random.Random(number))
                merged = execute(network, plan, []).merged
                compile_one(f"{spec} plan {number + 1}", merged, precisions, Path(folder))


if __name__ == "__main__":
    main()
