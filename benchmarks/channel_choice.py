"""Which channels should stay: orders of the channels of ResNet-20, compared by what is left of its held-out accuracy.

All channel groups are narrowed to the same share at once, or each alone, without any training. Every order is
evaluated with the same repair: none, each consumer corrected in closed form for itself, or all of them one after
another on what the narrowed network computes. Test images are not read.

    python benchmarks/channel_choice.py --width 0.75 --width 0.5
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Kind
from trt_layermerge.importance.evaluator import first
from trt_layermerge.merging.channel_choice import Reading, order_of
from trt_layermerge.merging.heads import heads_of, solve_head
from trt_layermerge.merging.narrowing import Kept, entries_of, narrow
from trt_layermerge.merging.norms import correct_norms, norm_inputs
from trt_layermerge.merging.readings import readings_of, write_corrected
from trt_layermerge.merging.ridge import RIDGE
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.channel_group import ChannelGroup
from trt_layermerge.network.cut import up_to
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.training.evaluate import Score, evaluate
from trt_layermerge.training.load_task import load_task
from trt_layermerge.training.task import Task

EXAMPLE = Path("examples/fashion_mnist")

Readings = Mapping[ChannelGroup, Mapping[str, Reading]]
Order = Callable[["Data", ChannelGroup], Sequence[int]]


@dataclass(frozen=True)
class Data:
    """A network and what orders are made from.

    Attributes:
        network: The original.
        task: Its task.
        batches: Calibration images.
        labels: Theirs, for the one order that looks at them.
        readings: What consumers read.
    """

    network: Network
    task: Task
    batches: Sequence[Tensor]
    labels: Sequence[Tensor]
    readings: Readings

    def part(self, name: str) -> nn.Module | None:
        """The module that a node calls, if it calls one."""
        (node,) = (node for node in self.network.module.graph.nodes if node.name == name)
        return self.network.module.get_submodule(str(node.target)) if node.op == "call_module" else None


def selected(data: Data, group: ChannelGroup) -> Sequence[int]:
    """Ours."""
    return order_of(list(data.readings[group].values()))


def eliminated(data: Data, group: ChannelGroup) -> Sequence[int]:
    """The other way round: channels leave one by one, each time the one without which least is lost.

    Removing one and correcting the rest is the step of Optimal Brain Surgeon (Hassibi and Stork, NIPS 1992).
    """
    runs, gone = [], list[int]()
    for one in data.readings[group].values():
        system = one.gram + RIDGE * one.gram.diagonal().mean() * torch.eye(len(one.gram), dtype=torch.float64)
        runs.append([torch.linalg.inv(system), (one.weight * one.scale).flatten(0, 1) / one.variance**0.5])
    while len(gone) < group.channels:
        costs = torch.zeros(group.channels, dtype=torch.float64)
        for inverse, weight in runs:
            blocks = inverse.reshape(group.channels, -1, group.channels, len(inverse) // group.channels)
            blocks = blocks[range(group.channels), :, range(group.channels)]
            blocks[gone] = torch.eye(blocks.shape[1], dtype=torch.float64)
            rows = weight.reshape(group.channels, -1, weight.shape[1])
            costs += (rows * torch.linalg.solve(blocks, rows)).sum((1, 2))
        costs[gone] = torch.inf
        gone.append(int(costs.argmin()))
        for run in runs:
            inverse, weight = run
            rows = entries_of([gone[-1]], group.channels, len(inverse))
            factor = torch.linalg.solve(inverse[rows][:, rows], inverse[rows])
            run[:] = inverse - inverse[:, rows] @ factor, weight - factor.T @ weight[rows]
    return gone[::-1]


def without_weights(data: Data, group: ChannelGroup) -> Sequence[int]:
    """Ours, for all that consumers read, whatever they make of it; by the Gram matrix alone, as LinDeps."""
    whole = []
    for one in data.readings[group].values():
        channels, each, _ = one.weight.shape
        every = torch.eye(channels * each, dtype=torch.float64).reshape(channels, each, -1)
        whole.append(replace(one, weight=every, scale=torch.ones(channels * each, dtype=torch.float64)))
    return order_of(whole)


def magnitude(data: Data, group: ChannelGroup) -> Sequence[int]:
    """L2 norm of the filters that make a channel."""
    return _largest(sum(_filters(data.part(name)).norm(dim=1) for name in group.producers))


def norm_scale(data: Data, group: ChannelGroup) -> Sequence[int]:
    """Scales of the batch norms behind."""
    norms = [part for name in group.through if isinstance(part := data.part(name), nn.BatchNorm2d)]
    return _largest(sum(norm.weight.detach().abs() for norm in norms))


def taylor(data: Data, group: ChannelGroup) -> Sequence[int]:
    """First-order change of the loss without a channel (Molchanov et al., arXiv 1611.06440), with labels."""
    names = [name for name in group.through if isinstance(data.part(name), nn.ReLU)]
    total = torch.zeros(group.channels)
    for batch, labels in zip(data.batches, data.labels, strict=True):
        values: dict[str, Tensor] = {}
        output = _Recorded(data.network.module, names, values).run(batch.clone().requires_grad_(True))
        data.task.loss(output, labels).backward()
        for value in values.values():
            assert value.grad is not None
            total += (value.detach() * value.grad).sum((2, 3)).abs().sum(0)
    return _largest(total)


def at_random(data: Data, group: ChannelGroup) -> Sequence[int]:
    """By chance, with one seed."""
    return torch.randperm(group.channels, generator=torch.Generator().manual_seed(group.index)).tolist()


ORDERS: dict[str, Order] = {
    "ours": selected,
    "ours, backwards": eliminated,
    "ours, without weights": without_weights,
    "L2": magnitude,
    "BN scale": norm_scale,
    "Taylor, with labels": taylor,
    "random": at_random,
}


class _Recorded(fx.Interpreter):
    """A run that keeps values and their gradients."""

    def __init__(self, module: fx.GraphModule, names: Sequence[str], values: dict[str, Tensor]) -> None:
        super().__init__(module)
        self.names, self.found = set(names), values

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.names:
            value.retain_grad()
            self.found[n.name] = value
        return value


def _filters(part: nn.Module | None) -> Tensor:
    assert isinstance(part, nn.Conv2d)
    return part.weight.detach().flatten(1)


def _largest(values: Any) -> list[int]:
    found: list[int] = values.argsort(descending=True).tolist()
    return found


def unrepaired(data: Data, kept: Kept) -> fx.GraphModule:
    """Channels are left out, and nothing else is done."""
    return narrow(data.network.module, kept)


def corrected(data: Data, kept: Kept) -> fx.GraphModule:
    """Consumers are corrected, each for itself; norms are corrected and the classifier is solved."""
    module = copy.deepcopy(data.network.module)
    for group, stay in kept.items():
        for name, reading in data.readings[group].items():
            write_corrected(module, name, reading, sorted(stay))
    batches = [(batch,) for batch in data.batches]
    correct_norms(module, batches, norm_inputs(data.network.module, batches))
    narrowed = narrow(module, kept)
    (head,) = heads_of(narrowed)
    student, teacher = up_to(narrowed, [head.source]), up_to(data.network.module, [head.name])
    linear = narrowed.get_submodule(head.target)
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        solve_head(linear, ((student(batch)[0], teacher(batch)[0]) for batch in data.batches), RIDGE)
    return narrowed


def in_sequence(data: Data, kept: Kept) -> fx.GraphModule:
    """As plans are carried out."""
    keeps = [choice for choice in choices_of(data.network) if choice.kind is Kind.KEEP]
    return execute(data.network, keeps, data.batches, kept=kept).merged


REPAIRS: dict[str, Callable[[Data, Kept], fx.GraphModule]] = {
    "none": unrepaired,
    "corrected": corrected,
    "in sequence": in_sequence,
}


def loaded(images: int) -> Data:
    """The example, trained, with what its consumers read."""
    network = load_network(f"{EXAMPLE}/model.py:resnet20", EXAMPLE / "resnet20.safetensors")
    task = load_task(EXAMPLE / "task.py")
    samples = list(first(task.calibration_batches(), images))
    batches, labels = [inputs[0] for inputs, _ in samples], [target for _, target in samples]
    readings = dict(readings_of(network.module, network.channel_groups, batches))
    return Data(network, task, batches, labels, readings)


def settings(groups: Sequence[ChannelGroup], widths: Sequence[float], each: bool) -> Iterator[tuple[str, list[Any]]]:
    """What is narrowed at once, with a name."""
    for width in widths:
        if each:
            yield from ((f"group {group.index} to {width:.0%}", [(group, width)]) for group in groups)
        else:
            yield f"all to {width:.0%}", [(group, width) for group in groups]


def main() -> None:
    """Print a row for each order and repair."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=float, action="append", help="share of channels; may be repeated")
    parser.add_argument("--images", type=int, default=2048, help="calibration images, without their labels")
    parser.add_argument("--held-out", type=int, default=5000, help="images to evaluate on")
    parser.add_argument("--each", action="store_true", help="each group alone, not all at once")
    parser.add_argument("--order", action="append", choices=list(ORDERS), help="by default, all; may be repeated")
    parser.add_argument("--repair", action="append", choices=list(REPAIRS), help="by default, all; may be repeated")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = loaded(given.images)

    def scored(module: fx.GraphModule) -> Score:
        return evaluate(module, first(data.task.held_out_batches(), given.held_out), data.task)

    print(f"original: {told(scored(data.network.module))}", flush=True)
    orders = {
        name: {g: list(ORDERS[name](data, g)) for g in data.network.channel_groups} for name in given.order or ORDERS
    }
    for setting, narrowed in settings(data.network.channel_groups, given.width or [0.75, 0.5], given.each):
        for repair in given.repair or REPAIRS:
            for name, order in orders.items():
                kept = {group: order[group][: round(width * group.channels)] for group, width in narrowed}
                began = time.monotonic()
                module = REPAIRS[repair](data, kept)
                seconds = time.monotonic() - began
                print(f"{setting:<18} {repair:<12} {name:<24} {told(scored(module))}  {seconds:.0f} s", flush=True)


def told(score: Score) -> str:
    """A score in words."""
    return f"{score.accuracy:.2%}, loss {score.loss:.4f}"


if __name__ == "__main__":
    main()
