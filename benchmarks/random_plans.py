"""Random plans of real networks, carried out: merges proved, engines compared with PyTorch.

Every plan tiles a network with choices drawn at random. Its merges are proved in float64, the merged network is
compared with the linearised one in float32, and the exported ONNX in ONNX Runtime with PyTorch; an error above its
tolerance (1e-10, 1e-4, 1e-4) ends the program. With ``--widths``, channel groups are narrowed as well: three in four,
to channels drawn at random. What is done is written below build/random_plans/, and not done again.

    python benchmarks/random_plans.py [--plans 10] [--only NAME] [--widths] [--table]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.cost import Setting
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.sized_choices import OfferedWidths, Widths, sized_choices
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.verification import verify_engine
from trt_layermerge.files import write_json
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.narrowing import Kept
from trt_layermerge.merging.proof import prove_network
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.inputs import batched_shapes, examples
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime

ROOT = Path(__file__).parents[1]
EXAMPLE = "examples/fashion_mnist/model.py"
ZOO = "benchmarks/zoo.py"
FOUND = ROOT / "build" / "random_plans"

NETWORKS = {
    "ResNet-20 (CIFAR form)": (f"{EXAMPLE}:resnet20", (1, 28, 28)),
    "ResNet-56 (CIFAR form)": (f"{EXAMPLE}:resnet56", (1, 28, 28)),
    "ResNet-34": ("torchvision:resnet34", (3, 64, 64)),
    "ResNet-50": ("torchvision:resnet50", (3, 64, 64)),
    "MobileNetV2-1.0": ("torchvision:mobilenet_v2", (3, 64, 64)),
    "MobileNetV2-1.4": ("timm:mobilenetv2_140", (3, 64, 64)),
    "VGG-16": ("torchvision:vgg16", (3, 32, 32)),
    "VGG-16 BN": ("torchvision:vgg16_bn", (3, 32, 32)),
    "VGG-19": ("torchvision:vgg19", (3, 32, 32)),
    "VGG-19 BN": ("torchvision:vgg19_bn", (3, 32, 32)),
    "DDPM U-Net (CIFAR-10)": ("examples/ddpm_cifar10/model.py:unet", (3, 32, 32)),
    "EfficientNet-B0": ("timm:efficientnet_b0", (3, 64, 64)),
    "MobileNetV3": ("timm:mobilenetv3_small_100", (3, 64, 64)),
    "RegNetY": ("timm:regnety_004", (3, 64, 64)),
    "DenseNet-121": ("torchvision:densenet121", (3, 64, 64)),
    "GoogLeNet": ("torchvision:googlenet", (3, 64, 64)),
    "ConvNeXt-T": ("timm:convnext_tiny", (3, 64, 64)),
    "HRNet": ("timm:hrnet_w18_small", (3, 64, 64)),
    "YOLO-like": (f"{ZOO}:yolo", (3, 96, 96)),
    "U-Net": (f"{ZOO}:unet", (3, 64, 64)),
}
"""Spec, and the input that plans are tried on."""

LIMITS = Limits(max_kernel=5, max_layers=6)
"""So that merges of thousands of channels fit in memory in float64."""

MOST_UNKNOWNS = 1200
"""Of each output channel of a fit, for the same reason: input channels of a group times taps of the kernel."""

EXACT = (Kind.KEEP, Kind.MERGE, Kind.IDENTITY)
"""What can be proved: a fit is not equal to what it replaces."""


@dataclass(frozen=True)
class Tried:
    """A plan that was carried out.

    Attributes:
        network: Its name.
        number: Of the plan, which is its seed.
        kinds: How many of each kind of choice; a fit of a region counts as ``region``.
        block: The worst merge's error, in float64.
        network_error: Of the merged network against the linearised one, in float32.
        engine: Of ONNX Runtime against PyTorch.
        narrowed: How many channel groups were narrowed.
    """

    network: str
    number: int
    kinds: dict[str, int]
    block: float
    network_error: float
    engine: float
    narrowed: int = 0


def random_plan(network: Network, generator: random.Random, kinds: Collection[Kind] = EXACT) -> list[Choice]:
    """A plan that tiles all chains with choices of these kinds, each block as likely as any other."""
    first = [0, *accumulate(map(len, network.chains))]  # numbers of the layers, all chains laid end to end
    starting: dict[int, dict[tuple[int, Block], list[Choice]]] = {}
    for choice in choices_of(network, LIMITS):
        if choice.kind in kinds and not _too_large(choice):
            block = choice.block
            end = first[block.chain if block.end_chain is None else block.end_chain] + block.end
            starting.setdefault(first[block.chain] + block.start, {}).setdefault((end, block), []).append(choice)
    plan, layer = [], 0
    while layer < first[-1]:
        ends = starting[layer]
        chosen = generator.choice(sorted(ends))
        plan.append(generator.choice(ends[chosen]))
        layer = chosen[0]
    return plan


def random_widths(network: Network, plan: Sequence[Choice], generator: random.Random) -> Kept:
    """Channels that stay of three groups in four; groups of which the plan needs all channels stay whole."""
    kept = {}
    for group in network.channel_groups:
        share = generator.choice((0.25, 0.5, 0.75, 1.0))
        if group.tensors and (channels := max(1, round(share * group.channels))) < group.channels:
            kept[group] = tuple(sorted(generator.sample(range(group.channels), channels)))
    while whole := _needed_whole(network, plan, kept):
        kept = {group: stay for group, stay in kept.items() if group.index not in whole}
    return kept


def _needed_whole(network: Network, plan: Sequence[Choice], kept: Kept) -> set[int]:
    """The groups of choices that cannot have the widths that are kept, by their numbers."""
    offered = [OfferedWidths(group, (group.channels, len(stay))) for group, stay in kept.items()]
    there = defaultdict[Choice, set[Widths]](set)
    for one in sized_choices(network, plan, offered, Setting(1)):
        there[one.choice].add(one.widths)
    channels = {group.index: len(stay) for group, stay in kept.items()}
    wanted = {choice: tuple((n, channels[n]) for n, _ in next(iter(sizes))) for choice, sizes in there.items()}
    return {number for choice, widths in wanted.items() if widths not in there[choice] for number, _ in widths}


def _too_large(choice: Choice) -> bool:
    if choice.kind is not Kind.FIT or (geometry := choice.geometry) is None:
        return False
    return geometry.in_channels // geometry.groups * geometry.kernel[0] * geometry.kernel[1] > MOST_UNKNOWNS


def randomise_norms(module: nn.Module) -> None:
    """Statistics and scales as training leaves them, so that folding a norm does something."""
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            nn.init.uniform_(part.weight, 0.5, 1.0)
            nn.init.normal_(part.bias, 0, 0.1)
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.0)
                nn.init.normal_(part.bias, 0, 0.1)


def check_plan(
    network: Network,
    plan: Iterable[Choice],
    *,
    export: bool,
    images: Sequence[Tensor] = (),
    kept: Kept | None = None,
) -> tuple[float, float, float | None]:
    """Execute a plan; any error above its tolerance raises.

    Args:
        network: The network.
        plan: Its choices.
        export: Whether ONNX Runtime is asked, too.
        images: Calibration batches, for fits.
        kept: Which channels of groups stay.

    Returns:
        The worst block's error in float64, the networks' in float32, and ONNX Runtime's against PyTorch if exported.
    """
    result = execute(network, plan, images, kept=kept)
    x = examples(network.inputs, batch=2)
    proof = prove_network(result.linearised, result.merged, x, result.proofs)
    engine_error = None
    if export:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            folded = fold_norms(result.merged)
            export_onnx(folded, network.inputs, path)
            shapes = batched_shapes(network.inputs, batch=2)
            engine = get_runtime("onnxruntime").build(path, BuildOptions(), shapes)
            engine_error, _ = verify_engine(engine, folded, x)
    return proof.worst_block, proof.end_to_end, engine_error


def tried(name: str, network: Network, number: int, *, widths: bool = False) -> Tried:
    """Make a random plan with fits, and widths if they are asked for, and carry it out."""
    single = len(network.inputs) == 1  # of several, batches of calibration data are made by a task alone
    chance = random.Random(number)
    plan = random_plan(network, chance, tuple(Kind) if single else EXACT)
    kept = random_widths(network, plan, chance) if widths else {}
    generator = torch.Generator().manual_seed(number)
    images = [torch.randn(8, *network.input_shape, generator=generator) for _ in range(2)] if single else []
    block, network_error, engine = check_plan(network, plan, export=True, images=images, kept=kept)
    assert engine is not None
    kinds = Counter("region" if choice.block.region is not None else str(choice.kind) for choice in plan)
    return Tried(name, number, dict(kinds), block, network_error, engine, len(kept))


def read(folder: Path) -> list[Tried]:
    """What was done before."""
    return [Tried(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]


def table(found: Sequence[Tried]) -> str:
    """A row for each network."""
    heads = "network", "plans", "kept", "merged", "fitted", "regions", "dropped", "narrowed", "block", "network"
    lines = ["| " + " | ".join((*heads, "ONNX Runtime")) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in dict.fromkeys(item.network for item in found):
        plans = [item for item in found if item.network == name]
        kinds = sum((Counter(item.kinds) for item in plans), Counter[str]())
        counts = [str(kinds[kind]) for kind in ("keep", "merge", "fit", "region", "identity")]
        counts.append(str(sum(plan.narrowed for plan in plans)))
        errors = [max(getattr(plan, error) for plan in plans) for error in ("block", "network_error", "engine")]
        lines.append("| " + " | ".join([name, str(len(plans)), *counts, *(f"{error:.0e}" for error in errors)]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Carry out what was not before, a line for each plan."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plans", type=int, default=10, help="of each network")
    parser.add_argument("--only", default="", help="names of networks must contain this")
    parser.add_argument("--widths", action="store_true", help="narrow channel groups, too; kept apart from the others")
    parser.add_argument("--table", action="store_true", help="only print what was found, as a table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    folder = FOUND / "widths" if given.widths else FOUND
    folder.mkdir(parents=True, exist_ok=True)
    done = read(folder)
    if given.table:
        print(table(done))
        return
    for name, (spec, shape) in NETWORKS.items():
        numbers = set(range(given.plans)) - {item.number for item in done if item.network == name}
        if given.only not in name or not numbers:
            continue
        torch.manual_seed(0)
        network = load_network(spec if ":" in spec and "/" not in spec else str(ROOT / spec), None, shape)
        randomise_norms(network.module)
        for number in sorted(numbers):
            print(found := tried(name, network, number, widths=given.widths), flush=True)
            write_json(folder / f"{name.replace(' ', '_')}.{number:03}.json", asdict(found))


if __name__ == "__main__":
    main()
