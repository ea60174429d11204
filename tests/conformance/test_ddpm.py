"""DDPM's U-Net as diffusers has it; ``benchmarks/random_plans.py --only DDPM`` tries more plans, and engines."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Kind
from trt_layermerge.merging.proof import prove_network
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.inputs import Input, examples
from trt_layermerge.network.network import Network, load_network

pytest.importorskip("diffusers", reason="pip install '.[diffusion]'")

EXAMPLE = Path(__file__).parents[2] / "examples" / "ddpm_cifar10" / "model.py"


@pytest.fixture(scope="module")
def ddpm() -> Network:
    torch.manual_seed(0)
    return load_network(f"{EXAMPLE}:unet")


def test_all_of_it_is_found(ddpm: Network) -> None:
    assert ddpm.inputs == (Input("sample", (3, 32, 32)), Input("timestep", (), below=1000))
    assert sum(value.numel() for value in ddpm.module.parameters()) == 35_746_307
    source = sys.modules["_trt_layermerge_model_model"].unet()
    assert set(ddpm.module.state_dict()) == set(source.state_dict())
    assert len(ddpm.layers) == 52 and all(item.reason for item in ddpm.breaks)
    pre_norms = [layer.name for layer in ddpm.layers if layer.pre_norm]
    assert len(pre_norms) == 2 * 22 + 1 and pre_norms[-1] == "conv_out"
    assert sum(layer.shift is not None for layer in ddpm.layers) == 22
    skips = [skip for chain in ddpm.chains for skip in chain.skips]
    assert len(skips) == 22 and sum(bool(skip.units) for skip in skips) == 13


def test_a_plan_is_proved(ddpm: Network) -> None:
    """Every residual block that is a chain by itself merged, dropped or kept."""
    generator = random.Random(0)
    whole = [item for item in choices_of(ddpm) if len(item.block) == 2 and item.kind is not Kind.FIT]
    plan = [generator.choice([item for item in whole if item.block == block]) for block in {c.block: 0 for c in whole}]
    tiled = [item for item in plan if len(ddpm.chains[item.block.chain]) == 2]
    assert len({item.kind for item in tiled}) == 2 and len(tiled) == 21
    result = execute(ddpm, tiled, [])
    proof = prove_network(result.linearised, result.merged, examples(ddpm.inputs, 2), result.proofs)
    assert proof.worst_block <= 1e-10 and proof.end_to_end <= 1e-4
