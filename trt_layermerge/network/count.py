"""Size of a network: convolutions executed and in a row, parameters, operations, and the memory of its activations."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import prod

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

BYTES = 4
"""Of one activation, float32."""

PASS = 2
"""What a forward pass takes: its tensors, and the same again in other layouts and in buffers of operations."""


@dataclass(frozen=True)
class Size:
    """How large a network is.

    Attributes:
        layers: Convolutions executed for one input.
        depth: Most of them on any one path from input to output.
        parameters: Numbers that are trained.
        flops: Floating-point operations for one image in convolutions and products of matrices, two per
            multiply-accumulate, as ``torch.utils.flop_counter`` counts them.
        peak_bytes: Most memory that the activations of one image take at once, in float32, when the graph is executed
            in its order and every tensor is freed after its last use.
    """

    layers: int
    depth: int
    parameters: int
    flops: int
    peak_bytes: int


def size_of(module: fx.GraphModule) -> Size:
    """Count a network in normal form; every node must have its shape."""
    executed = {node: _convolutions(module, node) for node in module.graph.nodes}
    depth: dict[fx.Node, int] = {}
    for node in module.graph.nodes:
        depth[node] = executed[node] + max((depth[value] for value in node.all_input_nodes), default=0)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Size(sum(executed.values()), max(depth.values()), parameters, _flops(module), _peak_bytes(module.graph))


def _convolutions(module: fx.GraphModule, node: fx.Node) -> int:
    called = module.get_submodule(str(node.target)).modules() if node.op == "call_module" else ()
    return sum(isinstance(part, nn.Conv2d | nn.ConvTranspose2d) for part in called)


def _flops(module: fx.GraphModule) -> int:
    """Operations of one image, counted while it runs."""
    like = next((tensor for tensor in (*module.parameters(), *module.buffers())), torch.zeros(()))
    images = [_zeros(node, like) for node in module.graph.nodes if node.op == "placeholder"]
    training = [part for part in module.modules() if part.training]
    module.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*images)
    for part in training:
        part.training = True
    return int(counter.get_total_flops())


def _zeros(placeholder: fx.Node, like: torch.Tensor) -> torch.Tensor:
    """One sample of an input: real numbers as the weights are, or whole ones."""
    real = placeholder.meta.get("dtype", torch.float32).is_floating_point
    dtype = like.dtype if real else placeholder.meta["dtype"]
    return torch.zeros(1, *placeholder.meta["shape"], dtype=dtype, device=like.device)


def pass_bytes(graph: fx.Graph, images: int) -> int:
    """Memory that one forward pass of a batch takes."""
    return PASS * images * _peak_bytes(graph)


def bytes_of(graph: fx.Graph, names: Collection[str]) -> int:
    """Memory of some values for one image."""
    return sum(_bytes(node) for node in graph.nodes if node.name in names)


def _peak_bytes(graph: fx.Graph) -> int:
    """The largest sum of tensors that are alive at one node: its own, its inputs, and what later nodes still need."""
    last = {value: node for node in graph.nodes for value in node.all_input_nodes}
    alive, peak = 0, 0
    for node in graph.nodes:
        if node.op in ("get_attr", "output"):
            continue
        alive += _bytes(node)
        peak = max(peak, alive)
        alive -= sum(_bytes(value) for value in node.all_input_nodes if last[value] is node)
    return peak


def _bytes(node: fx.Node) -> int:
    """Memory of what a node makes for one image; weights are no activations."""
    return 0 if node.op == "get_attr" else BYTES * (node.meta.get("multiple") or 1) * prod(node.meta.get("shape", (0,)))
