"""A delivered engine of a network so small that it is built in a second, made once and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from trt_layermerge.delivery.export import INPUT, export_onnx
from trt_layermerge.delivery.manifest import Manifest, hashes, read_manifest, write_manifest
from trt_layermerge.delivery.verification import verify_engine, write_checks
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.ort.ort_runtime import OnnxRuntime

GOLDEN = Path(__file__).parent / "assets" / "manifest-v1.json"
SHAPE, BATCH = (2, 6, 6), 4

torch.set_num_threads(1)


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)).eval()


@pytest.fixture(scope="session")
def network() -> nn.Module:
    return tiny()


@pytest.fixture(scope="session")
def build() -> Callable[[nn.Module, Path], None]:
    """Write ``network.onnx`` and ``engine.onnx`` of a network into a folder."""

    def build(module: nn.Module, folder: Path) -> None:
        export_onnx(module, SHAPE, folder / "network.onnx")
        engine = OnnxRuntime().build(folder / "network.onnx", BuildOptions(), {INPUT: (BATCH, *SHAPE)})
        engine.save(folder / "engine.onnx")

    return build


@pytest.fixture(scope="session")
def _delivered(
    tmp_path_factory: pytest.TempPathFactory, network: nn.Module, build: Callable[[nn.Module, Path], None]
) -> Path:
    folder = tmp_path_factory.mktemp("delivered")
    build(network, folder)
    inputs = torch.randn(10, *SHAPE, generator=torch.Generator().manual_seed(0))
    _, outputs = verify_engine(OnnxRuntime().load(folder / "engine.onnx", BuildOptions()), network, inputs)
    write_checks(folder / "checks.safetensors", [INPUT], inputs, outputs)
    deliver(folder)
    return folder


def deliver(folder: Path, **changes: object) -> None:
    """Write a manifest that fits the files in a folder."""
    names = ["network.onnx", "engine.onnx", "checks.safetensors"]
    right = {
        "files": hashes(folder, names),
        "engine": "engine.onnx",
        "onnx": "network.onnx",
        "checks": "checks.safetensors",
        "batch": BATCH,
        "device": asdict(OnnxRuntime().describe(BuildOptions())),
    }
    fields = read_manifest(GOLDEN).model_dump() | right | changes
    write_manifest(folder / "manifest.json", Manifest.model_validate(fields))


@pytest.fixture
def delivered(_delivered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_delivered, tmp_path / "delivery"))


@pytest.fixture(name="deliver", scope="session")
def _deliver() -> Callable[..., None]:
    return deliver
