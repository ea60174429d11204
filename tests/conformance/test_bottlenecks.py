"""Activations added at linear bottlenecks: what is executed, exported and executed is what was counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.cost import Setting, signatures
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.proof import prove_network
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.network import Network, trace

SHAPE = (3, 16, 16)
LIMITS = Limits(bottleneck_activations=True)


def unit(inputs: int, outputs: int, kernel: int = 1, **settings: int) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **settings)
    return [conv, nn.BatchNorm2d(outputs)]


class Inverted(nn.Module):
    """An inverted residual, with a skip where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, skip: bool = True) -> None:
        super().__init__()
        wide = 3 * inputs
        parts = [*unit(inputs, wide), nn.ReLU6(), *unit(wide, wide, 3, stride=stride, groups=wide), nn.ReLU6()]
        self.conv, self.skip = nn.Sequential(*parts, *unit(wide, outputs)), skip and (inputs, stride) == (outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


@pytest.fixture(scope="module")
def network() -> Network:
    """MobileNetV2 in small: a stem, five inverted residuals, the last layer and a classifier."""
    torch.manual_seed(0)
    body = [Inverted(4, 6, 2), Inverted(6, 6), Inverted(6, 6), Inverted(6, 8), Inverted(8, 8)]
    head = [*unit(8, 12), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)]
    module = nn.Sequential(*unit(3, 4, 3), nn.ReLU6(), *body, *head).eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.5)
    return trace("small", module, SHAPE)


@pytest.fixture(scope="module")
def choices(network: Network) -> dict[str, Choice]:
    return {choice.key: choice for choice in choices_of(network, LIMITS)}


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


PLANS = {
    "fits": ["0:1-4 fit 3x3 g1 +relu6", "0:4-7 fit 3x3 g1 +relu6", "0:10-13 fit 3x3 g1 +relu6"],
    "merges": ["0:1-4 merge 3x3 g1 +relu6", "0:4-7 merge 3x3 g1 +relu6", "0:7-10 merge 3x3 g1 +relu6"],
    "half of a branch": ["0:5-7 merge 3x3 g1 +relu6", "0:8-10 fit 1x1 g1 +relu6"],
    "several at once": ["0:1-7 fit 5x5 g1 +relu6", "0:7-13 merge 5x5 g1 +relu6"],
    "with and without": ["0:1-4 fit 3x3 g1", "0:4-7 fit 3x3 g1 +relu6", "0:7-10 fit 3x3 g1"],
}


def whole(choices: dict[str, Choice], keys: Sequence[str]) -> list[Choice]:
    """A plan of these choices; all other layers are kept."""
    plan = [choices[key] for key in keys]
    taken = {index for one in plan for index in range(one.block.start, one.block.end)}
    keeps = (one for one in choices.values() if one.kind is Kind.KEEP and one.block.start not in taken)
    return sorted([*plan, *keeps], key=lambda one: one.block)


@pytest.mark.parametrize("keys", PLANS.values(), ids=PLANS)
def test_merged_linearised_and_exported_they_are_one_function(
    network: Network, choices: dict[str, Choice], keys: Sequence[str], tmp_path: Path
) -> None:
    plan, x = whole(choices, keys), images(16)
    result = execute(network, plan, [images(24, seed) for seed in (1, 2)])
    assert prove_network(result.linearised, result.merged, x, result.proofs).worst_block <= 1e-10
    delivered = fold_norms(result.merged)
    export_onnx(delivered, network.inputs, tmp_path / "network.onnx")
    session = ort.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), delivered(x), rtol=1e-4, atol=1e-4)
    assert executed(onnx.load(tmp_path / "network.onnx")) == counted(network, plan)


def executed(model: onnx.ModelProto) -> Counter[str]:
    """What of a model the chain may have."""
    return Counter(node.op_type for node in model.graph.node if node.op_type in ("Conv", "Clip", "Add"))


def counted(network: Network, plan: Sequence[Choice]) -> Counter[str]:
    """The same by the signatures of a plan, which are executed as they would be timed."""
    operations = [one for choice in plan for one in signatures(network, choice, Setting(2))]
    return sum((executed(candidate_model(one)) for one in operations), Counter())


@pytest.mark.parametrize("kind", ["fit", "merge"])
def test_a_skip_is_added_behind_the_activation(network: Network, choices: dict[str, Choice], kind: str) -> None:
    """By hand: what stands in the block's place, clipped, and the block's input."""
    choice = choices[f"0:4-7 {kind} 3x3 g1 +relu6"]
    merged = execute(network, [choice], [images(40)]).merged
    seen: dict[str, Tensor] = {}
    names = {"before": "3.conv.7", "block": "merged_0_4_7", "behind": "5.conv.0"}
    for name, target in names.items():
        part = merged.get_submodule(target)
        part.register_forward_hook(lambda _, given, out, name=name: seen.update({name: out, f"{name} in": given[0]}))
    with torch.no_grad():
        merged(images(4, 3))
    x = seen["block in"]
    assert torch.equal(x, seen["before"])
    torch.testing.assert_close(seen["behind in"], seen["block"].clamp(0, 6) + x)
    assert seen["block"].min() < 0 and x.min() < 0, "else nothing was clipped, or nothing needed to be left alone"


def test_merges_are_products_of_the_branch_alone(network: Network, choices: dict[str, Choice]) -> None:
    """With the skip beside it, the kernel is that of the linear one without the identity that it holds."""
    both = [choices[f"0:4-7 merge 3x3 g1{end}"] for end in ("", " +relu6")]
    linear, activated = (execute(network, [one], []).merged.get_submodule("merged_0_4_7") for one in both)
    identity = torch.zeros_like(linear.weight)
    identity[range(6), range(6), 1, 1] = 1
    torch.testing.assert_close(linear.weight, activated.weight + identity)
    torch.testing.assert_close(linear.bias, activated.bias)
