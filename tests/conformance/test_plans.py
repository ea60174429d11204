"""Random plans of real networks, small inputs: a quick part of ``benchmarks/random_plans.py``, whose code runs."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.network.network import Network, load_network, trace

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "examples" / "fashion_mnist" / "model.py")


def unit(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def agree(random_plans: ModuleType, network: Network, *, export: bool) -> None:
    (chain,) = network.chains
    random_plans.randomise_norms(network.module)
    plan = random_plans.random_plan(network, random.Random(1))
    assert plan[-1].block.end == len(chain)
    assert any(choice.kind is Kind.MERGE for choice in plan)
    block, end_to_end, engine = random_plans.check_plan(network, plan, export=export)
    assert block <= 1e-10 and end_to_end <= 1e-4
    assert engine <= 1e-4 if export else engine is None


@pytest.mark.parametrize(
    ("spec", "shape", "export"),
    [
        (f"{EXAMPLE}:resnet20", (1, 28, 28), True),
        ("torchvision:mobilenet_v2", (3, 32, 32), False),
        ("timm:repvgg_a0", (3, 32, 32), False),
    ],
)
def test_merged_linearised_and_exported_networks_agree(
    random_plans: ModuleType, spec: str, shape: tuple[int, ...], export: bool
) -> None:
    torch.manual_seed(0)
    agree(random_plans, load_network(spec, None, shape), export=export)


@pytest.mark.parametrize(("name", "shape", "plans"), [("unet", (3, 32, 32), 2), ("yolo", (3, 64, 64), 1)])
def test_plans_with_fits_and_regions_are_what_their_engines_compute(
    random_plans: ModuleType, name: str, shape: tuple[int, ...], plans: int
) -> None:
    torch.manual_seed(0)
    network = load_network(f"{ROOT / 'benchmarks' / 'zoo.py'}:{name}", None, shape)
    random_plans.randomise_norms(network.module)
    found = [random_plans.tried(name, network, number) for number in range(plans)]
    assert all(one.block <= 1e-10 and max(one.network_error, one.engine) <= 1e-4 for one in found)
    assert {"fit", "region"} <= {kind for one in found for kind in one.kinds}


class Passed(nn.Module):
    """Residual blocks of two layers, and others that branch inside: a skip leads past the first layer of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 8)
        self.plain = nn.ModuleList(nn.Sequential(unit(8, 12), nn.Conv2d(12, 8, 3, padding=1)) for _ in range(2))
        self.first = nn.ModuleList(unit(8, 16) for _ in range(2))
        self.sides = nn.ModuleList(nn.Conv2d(16, 4, size, padding=size // 2) for size in (1, 3, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.plain:
            x = torch.relu(block(x) + x)
        for number, block in enumerate(self.first):
            h = block(x)
            x = torch.cat([side(h) for side in self.sides[2 * number : 2 * number + 2]], 1) + x
        return torch.relu(x).mean((2, 3))


@pytest.mark.parametrize("widths", [False, True], ids=["whole", "narrowed"])
def test_fits_behind_layers_are_what_their_engines_compute(random_plans: ModuleType, widths: bool) -> None:
    torch.manual_seed(0)
    network = trace("passed", Passed(), (3, 12, 12))
    random_plans.randomise_norms(network.module)
    offered = [one for one in choices_of(network, Limits(two_convolutions=True)) if one.behind or one.kind is Kind.KEEP]
    offered.sort(key=lambda one: (one.behind is not None, -len(one.block)))
    last = {(one.block.chain, one.block.start): one for one in offered}  # a fit behind a layer where there is one
    plan, at = [], (0, 0)
    while at[0] < len(network.chains):
        plan.append(last[at])
        block = plan[-1].block
        at = (block.chain if block.end_chain is None else block.end_chain, block.end)
        at = at if at[1] < len(network.chains[at[0]]) else (at[0] + 1, 0)
    assert {choice.block.region is None for choice in plan if choice.behind} == {False, True}
    kept = random_plans.random_widths(network, plan, random.Random(1)) if widths else {}
    assert bool(kept) == widths
    images = [torch.randn(8, 3, 12, 12) for _ in range(2)]
    assert random_plans.check_plan(network, plan, export=True, images=images, kept=kept)[2] <= 1e-4


class Branches(nn.Module):
    """TensorFlow's SAME padding, then branches side by side, a norm alone among them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 6, 3, 2, bias=False), nn.BatchNorm2d(6))
        self.large, self.small = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1, groups=2)
        self.norm, self.act, self.head = nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 2, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.stem(x))
        return self.head(self.act(self.small(y) + self.large(y) + self.norm(y))).mean((2, 3))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_uneven_padding_and_branches_are_exported(random_plans: ModuleType) -> None:
    torch.manual_seed(0)
    network = trace("branches", Branches(), (3, 16, 16))
    agree(random_plans, network, export=True)
    kept = [choice for choice in choices_of(network) if choice.kind is Kind.KEEP]
    assert random_plans.check_plan(network, kept, export=True)[2] <= 1e-4
