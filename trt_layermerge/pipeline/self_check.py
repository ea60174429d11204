"""A self-check: a small network, merged, proved, built, timed and verified, to see in seconds that all of it works."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.delivery.export import INPUT, export_onnx
from trt_layermerge.delivery.verification import verify_engine
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.proof import prove_network
from trt_layermerge.merging.sequential import execute_on
from trt_layermerge.network.device import device_named
from trt_layermerge.network.network import Network, trace
from trt_layermerge.runtimes.base import BuildOptions, Device, Runtime

BATCH, SHAPE = 8, (3, 64, 64)


@dataclass(frozen=True)
class SelfCheck:
    """What a self-check found.

    Attributes:
        device: Where it ran.
        original_ms: Median latency of the network, batch 8.
        merged_ms: Median latency of the network with three of its layers merged into one.
        merge_error: Relative error of the merged network against its unmerged form, float32.
        engine_error: Relative error of the merged network's engine against PyTorch.
        seconds: How long it all took.
    """

    device: Device
    original_ms: float
    merged_ms: float
    merge_error: float
    engine_error: float
    seconds: float


def check_itself(runtime: Runtime, options: BuildOptions) -> SelfCheck:
    """Merge, prove, export, build, save, load, verify and time a small network.

    Raises:
        LayerMergeError: Any of it fails; the message is what a real job would say.
    """
    begin, inputs = time.perf_counter(), _inputs()
    network = _network()
    compression = execute_on(device_named("auto"), network, _plan(network), [inputs])
    proof = prove_network(compression.linearised, compression.merged, inputs, compression.proofs)
    merged = fold_norms(compression.merged)
    with tempfile.TemporaryDirectory(prefix="trt_layermerge-") as folder:
        paths = {"original": Path(folder) / "original.onnx", "merged": Path(folder) / "merged.onnx"}
        export_onnx(fold_norms(network.module), SHAPE, paths["original"])
        export_onnx(merged, SHAPE, paths["merged"])
        shapes = {INPUT: (BATCH, *SHAPE)}
        engines = {name: runtime.build(path, options, shapes) for name, path in paths.items()}
        engines["merged"].save(Path(folder) / "merged.engine")
        engines["merged"] = runtime.load(Path(folder) / "merged.engine", options)
        difference, _ = verify_engine(engines["merged"], merged, inputs)
        timings = compare(engines, MeasurementPolicy(max_seconds=3.0))
    return SelfCheck(
        device=runtime.describe(options),
        original_ms=timings["original"].median_ns / 1e6,
        merged_ms=timings["merged"].median_ns / 1e6,
        merge_error=proof.end_to_end,
        engine_error=difference,
        seconds=time.perf_counter() - begin,
    )


def _inputs() -> torch.Tensor:
    return torch.randn(2 * BATCH, *SHAPE, generator=torch.Generator().manual_seed(0))


def _network() -> Network:
    """Five convolutions; the second to the fourth are an inverted residual without its skip."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            *_layer(3, 32, 3), *_layer(32, 96, 1), *_layer(96, 96, 3, groups=96), *_layer(96, 32, 1), *_layer(32, 32, 3)
        )
    return trace("self_check", module.eval(), SHAPE)


def _layer(inputs: int, outputs: int, kernel: int, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def _plan(network: Network) -> list[Choice]:
    """Keep the first layer and the last, merge what lies between."""
    wanted = {Block(0, 0, 1): Kind.KEEP, Block(0, 1, 4): Kind.MERGE, Block(0, 4, 5): Kind.KEEP}
    choices = {
        choice.block: choice
        for choice in choices_of(network, Limits())
        if wanted.get(choice.block) is choice.kind and len(choice.kept) == len(choice.block)
    }
    return [choices[block] for block in wanted]
