"""A proof lets pass what is right and nothing else."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.lowering import lower
from trt_layermerge.errors import ExitCode, ProofError
from trt_layermerge.merging import proof
from trt_layermerge.merging.linear import LinearisedBlock, folded
from trt_layermerge.merging.proof import prove_block, prove_folds, prove_network, relative_error


@pytest.fixture
def block(quick):
    """A block and its merged convolution."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 5, padding=2))
    network = quick(module, (4, 9, 9))
    arguments = network.module, lower(network.chains[0], Choice(Block(0, 0, 2), Kind.MERGE, None, (1, 2))).composed
    return LinearisedBlock(*arguments), folded(*arguments)


def test_a_right_merge_is_proved(block):
    assert prove_block(*block).error <= proof.BLOCK_TOLERANCE
    assert prove_block(*block).block == "block 0:0-2"


@settings(max_examples=20)
@given(data=st.data())
def test_one_weight_off_by_a_millionth_is_found(networks, plans, data):
    network = data.draw(networks)
    merges = [choice for choice in data.draw(plans(network, "keep merge")) if choice.kind is Kind.MERGE]
    for choice in merges:
        arguments = network.module, lower(network.chains[choice.block.chain], choice).composed
        merged = folded(*arguments)
        prove_block(LinearisedBlock(*arguments), merged)
        index = tuple(data.draw(st.integers(0, size - 1)) for size in merged.weight.shape)
        weight = merged.weight.clone()
        weight[index] += 1e-6
        with pytest.raises(ProofError, match=f"block {choice.block}: .* differ by") as caught:
            prove_block(LinearisedBlock(*arguments), replace(merged, weight=weight))
        assert caught.value.exit_code == ExitCode.PROOF_FAILED == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["merged", "unmerged"])
def test_what_is_not_finite_is_no_proof(block, value, where):
    unmerged, merged = block
    with torch.no_grad():
        (merged.bias if where == "merged" else unmerged.parts["1"][0].bias)[0] = value
    with pytest.raises(ProofError, match=r"0:0-2.* inf"):
        prove_block(unmerged, merged)


def test_another_shape_is_no_proof(block):
    unmerged, merged = block
    padded = replace(merged, geometry=replace(merged.geometry, padding=(9, 9, 9, 9)))
    with pytest.raises(ProofError, match="shapes"):
        prove_block(unmerged, padded)


def test_proving_changes_nothing(block):
    unmerged, merged = block
    unmerged.train()
    before = {name: value.clone() for name, value in unmerged.state_dict().items()}
    prove_block(unmerged, merged)
    assert unmerged.training
    assert all(value.dtype == before[name].dtype for name, value in unmerged.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in unmerged.state_dict().items())


def test_folds_are_proved_and_named():
    module = fx.symbolic_trace(nn.Sequential(nn.Conv2d(2, 3, (3, 2), 2, dilation=3), nn.BatchNorm2d(3)).eval())
    assert [item.block for item in prove_folds(module)] == ["fold 0"]
    without_norm = mock.patch.object(proof, "with_norm", lambda conv, norm: conv)
    with without_norm, pytest.raises(ProofError, match="fold 0"):
        prove_folds(module)
    module.get_submodule("1").running_var[1] = -1
    with pytest.raises(ProofError, match="fold 0"):
        prove_folds(module)


class Several(nn.Module):
    def __init__(self, small):
        super().__init__()
        self.small = small

    def forward(self, x):
        return 1e6 * x, self.small * x


def test_each_of_several_outputs_is_compared_on_its_own_scale():
    x = torch.ones(3, 1, 2, 2)
    assert prove_network(Several(1.0), Several(1.00001), x).end_to_end == pytest.approx(1e-5, rel=0.1)
    with pytest.raises(ProofError, match="merged network differs"):
        prove_network(Several(1.0), Several(1.001), x)


def test_networks_are_compared_end_to_end():
    a, b = nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False)
    inputs, blocks = torch.ones(3, 1, 2, 2), [proof.BlockProof("block 0:0-2", 1e-13)]
    with torch.no_grad():
        a.weight.fill_(1)
        b.weight.fill_(1 + 5e-5)
    shown = prove_network(a, b, inputs, blocks)
    assert shown.end_to_end == pytest.approx(5e-5, rel=1e-2)
    assert (shown.samples, shown.blocks, shown.worst_block) == (3, tuple(blocks), 1e-13)
    assert prove_network(a, a, inputs).worst_block == 0
    for wrong in (1 + 2e-4, float("nan")):
        with torch.no_grad():
            b.weight.fill_(wrong)
        for pair in ((a, b), (b, a)):
            with pytest.raises(ProofError, match="merged network differs"):
                prove_network(*pair, inputs)


def test_error_is_relative_to_the_largest():
    assert relative_error(torch.tensor([1.0, 4.5]), torch.tensor([1.0, 5.0])) == pytest.approx(0.1)
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0
    assert relative_error(torch.ones(2), torch.zeros(2)) > 1e30
    assert relative_error(torch.tensor([float("nan")]), torch.tensor([float("nan")])) == float("inf")
