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
from trt_layermerge.network.network import Network, load_network, trace

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "examples" / "fashion_mnist" / "model.py")


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
