"""What is kept is re-solved behind the first change, makes up for it, and costs no operation more."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.merging import patches, reconstruction
from trt_layermerge.merging.fitting import NormalEquations
from trt_layermerge.merging.proof import prove_network
from trt_layermerge.merging.reconstruction import PAPERS, PLAIN, Strength
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.count import size_of
from trt_layermerge.network.cut import up_to
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.network import trace

LAYERS = replace(PLAIN, layers=True)


class Net(nn.Module):
    """Five layers, with and without norm and bias, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 6, 3, padding=1)
        self.b = nn.Conv2d(6, 6, 3, padding=1)
        self.c, self.norm = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.d = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head, self.act = nn.Linear(8, 5), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.b(self.act(self.a(x))))
        y = self.act(self.d(self.act(self.norm(self.c(y)))))
        return self.head(y.mean((2, 3)))


@pytest.fixture(scope="module")
def network(quick):
    torch.manual_seed(0)
    module = Net()
    with torch.no_grad():
        module.norm.running_mean.uniform_(-0.2, 0.2)
        module.norm.running_var.uniform_(0.05, 0.2)
    return quick(module, (4, 9, 9))


@pytest.fixture(scope="module")
def batches(images):
    return [images(40, (4, 9, 9), seed) for seed in (1, 2)]


def plan(network, end: int = 2, kernel: int = 1) -> list[Choice]:
    """The first layers as one small convolution, all others kept."""
    channels = network.chains[0].shape(end)[0]
    side = kernel // 2
    fit = Choice(Block(0, 0, end), Kind.FIT, Geometry(4, channels, (kernel, kernel), padding=(side,) * 4))
    return [fit, *(c for c in choices_of(network) if c.kind is Kind.KEEP and c.block.start >= end)]


def drift(network, model, batches) -> float:
    with torch.no_grad():
        return sum(float((model(x) - network.module(x)).square().sum()) for x in batches)


def test_each_ingredient_brings_the_network_nearer_to_the_original(network, batches):
    steps = [PLAIN, LAYERS, replace(LAYERS, head=True)]
    made = [execute(network, plan(network), batches, strength=strength) for strength in steps]
    drifts = [drift(network, result.merged, batches) for result in made]
    assert drifts[0] > drifts[1] > drifts[2]
    assert set(made[1].refits) == {"0:2-3 keep 3x3 g1", "0:3-4 keep 3x3 g1"}
    assert not made[0].refits
    for result in made:
        prove_network(result.linearised, result.merged, batches[0], result.proofs)
    assert len({replace(size_of(result.merged), parameters=0) for result in made}) == 1


def test_all_of_it_is_the_default(network, batches):
    default, full = (execute(network, plan(network), batches, strength=s).merged for s in (None, Strength()))
    assert all(
        torch.equal(a, b) for a, b in zip(default.state_dict().values(), full.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("strength", [PLAIN, replace(PLAIN, activations=True, ridge=True)])
def test_a_kernel_of_more_unknowns_than_patches_is_drawn_to_a_smaller_one(network, batches, images, strength):
    """On other images it is not far from that, where by itself it would be twice as far from the original."""
    few = {"LARGEST_SYSTEM": 40, "MOST_KEPT": 90}  # of 100 unknowns; the 3x3 kernel has 36
    small = execute(network, plan(network, kernel=3), batches, strength=strength).merged
    with mock.patch.multiple(patches, **few):
        wide = execute(network, plan(network, kernel=5), batches, strength=strength).merged
        with mock.patch.object(reconstruction, "formed_part", lambda geometry: geometry):
            alone = execute(network, plan(network, kernel=5), batches, strength=strength).merged
    others = [images(40, (4, 9, 9), 3)]
    of_small, of_wide, of_alone = (drift(network, model, others) for model in (small, wide, alone))
    assert of_wide < 1.5 * of_small and of_wide < 0.6 * of_alone


def test_what_nothing_changed_before_stays(network, batches):
    """Also where nothing changes at all."""
    keeps = [choice for choice in choices_of(network) if choice.kind is Kind.KEEP]
    state = network.module.state_dict()
    last = Choice(Block(0, 3, 4), Kind.FIT, Geometry(8, 8, (1, 1)))
    for choices in (keeps, [*keeps[:3], last]):
        result = execute(network, choices, batches)
        assert not result.refits
        after = result.merged.state_dict()
        same = [name for name in after if name.startswith(("a.", "b.", "c.", "norm.")) and "tracked" not in name]
        assert len(same) >= 9
        assert all(torch.equal(after[name], state[name]) for name in same)


def test_a_norm_stays_and_its_statistics_are_those_of_what_reaches_it(network, batches):
    """So that training starts from what evaluation mode computes."""
    merged = execute(network, plan(network), batches, strength=LAYERS).merged
    norm = merged.get_submodule("norm")
    seen: list[Tensor] = []
    handle = norm.register_forward_hook(lambda module, args, output: seen.append(args[0].detach()))
    with torch.no_grad():
        for x in batches:
            merged(x)
    handle.remove()
    reached = torch.cat(seen)
    torch.testing.assert_close(norm.running_mean, reached.mean((0, 2, 3)), rtol=2e-2, atol=1e-2)
    torch.testing.assert_close(norm.running_var, reached.var((0, 2, 3)), rtol=5e-2, atol=1e-3)
    with torch.no_grad():
        norm.eval()
        evaluated = norm(reached)
        norm.train()
        torch.testing.assert_close(norm(reached), evaluated, rtol=5e-2, atol=5e-2)


def test_filters_in_front_of_a_norm_do_not_become_shorter(quick, batches):
    """Or one step would turn them much further than it did in the original's training."""
    torch.manual_seed(0)
    source = Net()
    with torch.no_grad():
        source.c.weight.mul_(20)  # which the norm takes back
        source.norm.running_var.fill_(40)
    length, long = source.c.weight.flatten(1).norm(dim=1).median(), quick(source, (4, 9, 9))
    merged = execute(long, plan(long), batches, strength=LAYERS).merged
    lengths = merged.get_parameter("c.weight").flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, length.expand_as(lengths))


def test_where_training_follows_the_classifier_is_nearer_to_what_it_was(network, batches):
    was = network.module.get_parameter("head.weight")
    made = [execute(network, plan(network), batches, strength=Strength(trains=one)).merged for one in (True, False)]
    nearer, farther = (torch.dist(one.get_parameter("head.weight"), was) for one in made)
    assert 0 < nearer < farther


class Unusual(nn.Module):
    """Behind the first two layers: a dilated one, one that is called twice, and a classifier without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.wide = nn.Conv2d(4, 4, 3, padding=2, dilation=2)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.head, self.act = nn.Linear(4, 3, bias=False), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.wide(self.act(self.b(self.act(self.a(x))))))
        y = self.act(self.twice(self.act(self.twice(y))))
        return self.head(y.mean((2, 3)))


def test_what_cannot_be_solved_anew_is_left_alone(quick, images):
    torch.manual_seed(1)
    network, batches = quick(Unusual(), (4, 9, 9)), [images(9, (4, 9, 9))]
    result = execute(network, plan(network), batches)
    assert not result.refits
    before, after = network.module.state_dict(), result.merged.state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items() if not name.startswith("merged"))


class Timed(nn.Module):
    """What a time step adds depends on no image; what comes of the images is all dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.conv, self.head = nn.Linear(4, 4), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean((2, 3))) + self.time(x.mean((2, 3)))[:, :3]


def test_a_linear_layer_is_solved_where_a_convolution_came_before_it(images):
    """Also where none does any more; one that no convolution comes before cannot have changed."""
    torch.manual_seed(0)
    network = trace("timed", Timed().eval(), (4, 6, 6))
    (drop,) = (choice for choice in choices_of(network) if choice.kind is Kind.IDENTITY)
    after = execute(network, [drop], [images(20, (4, 6, 6))]).merged.state_dict()
    before = network.module.state_dict()
    assert torch.equal(before["time.weight"], after["time.weight"])
    assert not torch.allclose(before["head.weight"], after["head.weight"])


def test_without_data_nothing_is_solved(network):
    """A plan that only drops and merges needs none."""
    drop = next(c for c in choices_of(network) if c.kind is Kind.IDENTITY)
    keeps = [c for c in choices_of(network) if c.kind is Kind.KEEP and c.block != drop.block]
    result = execute(network, [drop, *keeps], [])
    after, before = result.merged.state_dict(), network.module.state_dict()
    assert not result.refits and all(torch.equal(before[name], value) for name, value in after.items())


def test_a_plan_without_fits_gets_norms_that_fit_it(network, batches):
    """Only those behind the change, moved as what reaches them, alike in the merged and the linearised network."""
    by_kind = {(choice.kind, choice.block): choice for choice in choices_of(network)}
    merge = by_kind[Kind.MERGE, Block(0, 0, 2)]
    keeps = [by_kind[Kind.KEEP, Block(0, index, index + 1)] for index in (2, 3)]
    papers = execute(network, [merge, *keeps], batches, strength=PAPERS)
    prove_network(papers.linearised, papers.merged, batches[0], papers.proofs)
    before, after = network.module.get_submodule("norm"), papers.merged.get_submodule("norm")
    assert torch.equal(after.running_var, papers.linearised.norm.running_var)
    reached = (up_to(module, ["c"])(torch.cat(batches))[0] for module in (network.module, papers.merged))
    (old_variance, old_mean), (variance, mean) = (torch.var_mean(x, (0, 2, 3), correction=0) for x in reached)
    ratio = (variance + before.eps) / (old_variance + before.eps)
    torch.testing.assert_close(after.running_mean, mean + ratio.sqrt() * (before.running_mean - old_mean))
    torch.testing.assert_close(after.running_var + before.eps, ratio * (before.running_var + before.eps))
    assert not torch.allclose(after.running_var, before.running_var, rtol=0.01)
    late = [
        *(by_kind[Kind.KEEP, Block(0, index, index + 1)] for index in range(3)),
        by_kind[Kind.IDENTITY, Block(0, 3, 4)],
    ]
    after = execute(network, late, batches, strength=PAPERS).merged.state_dict()
    assert torch.equal(after["norm.running_var"], network.module.state_dict()["norm.running_var"])


class Inverted(nn.Module):
    """An inverted residual: ``x + body(x)``, with no activation at its end."""

    def __init__(self) -> None:
        super().__init__()
        wide = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.body = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU6(), wide, nn.ReLU6(), nn.Conv2d(8, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@pytest.fixture(scope="module")
def bottlenecks(quick):
    torch.manual_seed(2)
    stem, last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
    module = nn.Sequential(stem, nn.ReLU6(), Inverted(), Inverted(), last)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0, 1.5 * part.weight[0].numel() ** -0.5)
    return quick(module, (4, 9, 9))


THREE = Geometry(4, 4, (3, 3), padding=(1, 1, 1, 1))
FIRST, SECOND = (Choice(Block(0, start, start + 3), Kind.FIT, THREE, activation="relu6") for start in (1, 4))


def test_a_fit_before_a_skip_makes_up_for_what_the_skip_carries(bottlenecks, images):
    """By hand: from the compressed network's own tensor, to what the original has less what the skip adds now."""
    batches = [images(4, (4, 9, 9), seed) for seed in (1, 2)]  # so few that every pixel is looked at
    result, (chain,) = execute(bottlenecks, [FIRST, SECOND], batches, strength=PLAIN), bottlenecks.chains
    second = result.merged.get_submodule("merged_0_4_7")
    (block,) = (node for node in result.merged.graph.nodes if node.target == "merged_0_1_4")
    (activation,) = block.users
    (before,) = activation.users  # the skip's addition
    equations = NormalEquations(THREE)
    with torch.no_grad():
        for x in batches:
            (reached,) = up_to(result.merged, [before.name])(x)
            (wanted,) = up_to(bottlenecks.module, [chain.tensor(7)])(x)
            equations.add(reached, wanted - reached)
    expected = equations.solve(THREE).convolution
    torch.testing.assert_close(second.weight, expected.weight.float(), rtol=1e-4, atol=1e-5)


def test_a_fit_through_an_added_activation_is_nearer_to_what_was_linear(bottlenecks, batches):
    (chain,) = bottlenecks.chains

    def far(strength: Strength) -> float:
        merged = execute(bottlenecks, [FIRST], batches, strength=strength).merged
        made = nn.Sequential(merged.get_submodule("merged_0_1_4"), nn.ReLU6())
        with torch.no_grad():
            both = [up_to(bottlenecks.module, [chain.tensor(1), chain.tensor(4)])(x) for x in batches]
            return sum(float((made(x) + x - wanted).square().sum()) for x, wanted in both)

    assert far(replace(PLAIN, activations=True)) < far(PLAIN)
