"""Size of a network: convolutions executed, parameters, floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import fx, nn


@dataclass(frozen=True)
class Size:
    """How large a network is.

    Attributes:
        layers: Convolutions executed for one input.
        parameters: Numbers that are trained.
        flops: Floating-point operations for one image in convolutions and linear layers, two per multiply-accumulate.
    """

    layers: int
    parameters: int
    flops: int


def size_of(module: fx.GraphModule) -> Size:
    """Count a network in normal form; every node must have its shape."""
    layers = macs = 0
    for node in module.graph.nodes:
        called = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        for part in [] if called is None else called.modules():
            if isinstance(part, nn.Conv2d):
                layers += 1
                macs += prod(node.meta["shape"]) * prod(part.weight.shape[1:])
            elif isinstance(part, nn.Linear):
                # One that is part of another module, as in a merged block, is applied to one vector for each image.
                macs += (prod(node.meta["shape"]) if part is called else part.out_features) * part.in_features
    return Size(layers, sum(parameter.numel() for parameter in module.parameters()), 2 * macs)
