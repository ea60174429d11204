"""Linear layers behind the convolutions, such as a classifier: re-solved for what the original makes there.

That needs no labels and costs no operation more, and makes up for much of what a change close to the end does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, fx, nn

from trt_layermerge.merging.patches import LARGEST_SYSTEM
from trt_layermerge.merging.ridge import Primal
from trt_layermerge.network.placing import called_module

HEAD_RIDGE = 1e-2
"""Ridge term, in mean squares of a feature. Features are alike and images few: with less, weights are large and cancel
each other. That is nearer to what is wanted, but neither dropout nor a step of training leaves them balanced."""


@dataclass(frozen=True)
class Head:
    """A linear layer behind a convolution, with a bias, that is called once.

    Attributes:
        name: Of the node that calls it, and whose value is wanted.
        source: Of the node that it reads.
        target: The module, as in ``get_submodule``.
        features: What it reads: numbers in a row.
    """

    name: str
    source: str
    target: str
    features: int


def heads_of(module: fx.GraphModule) -> Iterator[Head]:
    """The linear layers of a network that can be solved, in order of execution.

    Where no convolution comes before one, such as in a time step's embedding, nothing can have changed.
    """
    calls = [node for node in module.graph.nodes if node.op == "call_module"]
    times = Counter(str(node.target) for node in calls)
    behind: set[fx.Node] = set()
    for node in module.graph.nodes:
        part = called_module(module, node)
        if isinstance(part, nn.Linear) and part.bias is not None and times[str(node.target)] == 1:
            (source,) = node.all_input_nodes
            if source in behind and part.in_features <= LARGEST_SYSTEM:
                yield Head(node.name, source.name, str(node.target), part.in_features)
        if isinstance(part, nn.Conv2d) or not behind.isdisjoint(node.all_input_nodes):
            behind.add(node)


def solve_head(
    linear: nn.Linear,
    pairs: Iterable[tuple[Tensor, Tensor]],
    ridge: float = HEAD_RIDGE,
    reads: Int[Tensor, " features"] | None = None,
) -> None:
    """Give a linear layer the weights that best make wanted outputs of its inputs, drawn to those that it has.

    Where the network is so broken that they are not finite, nothing could, and it stays as it is.

    Args:
        linear: Has a bias; is changed.
        pairs: Inputs and wanted outputs, ``[..., features]`` each.
        ridge: How strongly it is drawn, in mean squares of a feature.
        reads: The features that it may read, all by default; the weights of others become 0.
    """
    taken = torch.arange(linear.in_features) if reads is None else reads
    taken = taken.to(linear.weight.device)
    weight, size = linear.weight[:, taken].double(), len(taken) + 1
    gram, cross = weight.new_zeros(1, size, size), weight.new_zeros(1, size, len(weight))
    with torch.no_grad():
        for given, wanted in pairs:
            x = given.flatten(0, -2)[:, taken].double()
            x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
            gram, cross = gram + x.T @ x, cross + x.T @ wanted.flatten(0, -2).double()
        if not (gram.isfinite().all() and cross.isfinite().all()):
            return
        prior = torch.cat([weight, linear.bias.double()[:, None]], 1).T[None]
        solution = Primal(gram, ridge).solve(cross, prior)[0]
        linear.weight.zero_()
        linear.weight[:, taken] = solution[:-1].T.to(linear.weight)
        linear.bias.copy_(solution[-1])
