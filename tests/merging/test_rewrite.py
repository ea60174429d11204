"""Rewriting changes the blocks of a plan and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.lowering import lower
from trt_layermerge.merging.algebra import to_module
from trt_layermerge.merging.linear import folded
from trt_layermerge.merging.rewrite import module_name, rewrite


def modules_of(network, plan):
    """Merged modules of a plan without fits."""
    made = {}
    for choice in plan:
        made[choice] = None
        if choice.kind is Kind.MERGE:
            made[choice] = to_module(folded(network.module, lower(network.chains[choice.block.chain], choice).composed))
    return made


def own(choice_or_block, chain):
    """Merging one layer with nothing."""
    layer = chain.layers[choice_or_block.end - 1]
    return Choice(choice_or_block, Kind.MERGE, layer.geometry, (layer.index,))


@given(data=st.data())
def test_layers_merged_with_nothing_keep_the_function(networks, images, data):
    """Whatever is around them: skips that start, end or pass, activations, strides."""
    network = data.draw(networks)
    plan = [
        own(Block(chain.index, i, i + 1), chain)
        for chain in network.chains
        for i in range(len(chain))
        if data.draw(st.booleans())
    ]
    rewritten, x = rewrite(network, modules_of(network, plan)), images(2)
    with torch.no_grad():
        torch.testing.assert_close(rewritten(x), network.module(x), rtol=1e-4, atol=1e-4)


@given(data=st.data())
def test_nothing_else_changes(networks, plans, images, data):
    network = data.draw(networks)
    plan = data.draw(plans(network, "keep merge identity"))
    x, code = images(2), str(network.module.graph)
    state = {name: value.clone() for name, value in network.module.state_dict().items()}
    original, made = network.module(x), modules_of(network, plan)
    copied, shared = rewrite(network, made), rewrite(network, made, share=True)
    assert torch.equal(copied(x), shared(x))
    assert torch.equal(network.module(x), original)
    assert str(network.module.graph) == code
    assert network.module.state_dict().keys() == state.keys()
    assert all(torch.equal(state[name], value) for name, value in network.module.state_dict().items())
    own_modules = dict(network.module.named_modules())
    for result, shares in ((copied, False), (shared, True)):
        nodes = {node.name: node for node in result.graph.nodes}
        for choice in plan:
            layer = network.chains[choice.block.chain].layers[choice.block.end - 1]
            if choice.kind is Kind.KEEP:
                assert nodes[layer.first].target == layer.name
                assert (result.get_submodule(layer.name) is own_modules[layer.name]) == shares
            else:
                assert layer.first not in nodes
                assert (module_name(choice.block) in dict(result.named_modules())) == (choice.kind is Kind.MERGE)
        called = {str(node.target) for node in result.graph.nodes if node.op == "call_module"}
        held = {name.rsplit(".", 1)[0] for name in result.state_dict()}
        assert held <= called, "a module that nothing calls is left"


@given(data=st.data())
def test_shapes_stay_known(networks, plans, data):
    network = data.draw(networks)
    rewritten = rewrite(network, modules_of(network, data.draw(plans(network, "keep merge identity"))))
    for node in rewritten.graph.nodes:
        if node.op != "output":
            assert len(node.meta["shape"]) == 3


def test_an_empty_plan_is_a_copy(quick, images):
    network = quick(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), (4, 3, 3))
    copy = rewrite(network, {})
    assert torch.equal(copy(images(1)), network.module(images(1)))
    assert copy.get_submodule("0") is not network.module.get_submodule("0")


class TwoSkips(nn.Module):
    """Two skips from before the last layer end there."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.act = nn.ReLU()

    def forward(self, x):
        y = self.act(self.a(x))
        return self.act(self.c(self.act(self.b(y))) + y + x)


@pytest.mark.parametrize("start", [0, 1, 2])
def test_two_outer_skips_are_both_kept(quick, images, start):
    network, x = quick(TwoSkips(), (4, 5, 5)), images(2, (4, 5, 5))
    (chain,) = network.chains
    assert len(chain.skips) == 2
    choice = Choice(Block(0, start, 3), Kind.FIT, chain.layers[2].geometry)
    stand_in = nn.Conv2d(4, 4, 3, padding=1)
    y = network.module.a(x).relu()
    expected = stand_in((x, y, network.module.b(y).relu())[start]) + (0, x, x + y)[start]
    assert torch.allclose(rewrite(network, {choice: stand_in})(x), expected.relu(), atol=1e-6)


class LateSkip(nn.Module):
    """A residual block as in Darknet: the skip is added behind the last activation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))
        self.act = nn.ReLU()

    def forward(self, x):
        y = self.act(self.a(x))
        return self.d(self.act(self.c(self.act(self.b(y)))) + y)


@pytest.mark.parametrize("start", [1, 2])
def test_a_late_skip_is_added_behind_the_activation(quick, images, start):
    network, x = quick(LateSkip(), (4, 5, 5)), images(2, (4, 5, 5))
    (chain,) = network.chains
    choice, stand_in = Choice(Block(0, start, 3), Kind.FIT, chain.layers[2].geometry), nn.Conv2d(4, 4, 3, padding=1)
    y = network.module.a(x).relu()
    result = stand_in((y, network.module.b(y).relu())[start - 1]).relu() + y
    assert torch.allclose(rewrite(network, {choice: stand_in})(x), network.module.d(result), atol=1e-6)


def test_a_dropped_branch_leaves_a_late_skip(quick, images):
    network, x = quick(LateSkip(), (4, 5, 5)), images(2, (4, 5, 5))
    rewritten = rewrite(network, {Choice(Block(0, 1, 3), Kind.IDENTITY, None): None})
    assert torch.equal(rewritten(x), network.module.d(network.module.a(x).relu()))
    assert len(rewritten.graph.nodes) == 5


def test_dropout_is_kept_where_its_layer_is(quick):
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Dropout(), nn.Conv2d(4, 4, 1), nn.Dropout(), nn.ReLU())
    network = quick(module, (4, 3, 3))
    (chain,) = network.chains
    assert [layer.output for layer in chain.layers] == ["_2", "_5"] and chain.layers[1].activation == "relu"
    kept = rewrite(network, {Choice(Block(0, 1, 2), Kind.FIT, chain.layers[1].geometry): nn.Conv2d(4, 4, 1)})
    assert [name for name, part in kept.named_modules() if isinstance(part, nn.Dropout)] == ["2"]


def test_an_activation_after_its_own_output_is_left_out(quick):
    network = quick(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU()), (4, 3, 3))
    rewritten = rewrite(network, {Choice(Block(0, 1, 2), Kind.IDENTITY, None): None})
    assert [str(node.target) for node in rewritten.graph.nodes if node.op == "call_module"] == ["0", "1"]
