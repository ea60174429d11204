"""Gates: activations that may become the identity, because a schedule says so or because the network can do without.

A gate ``a`` makes ``a x + (1 - a) s(x)`` of an activation s: at 0 the activation itself, at 1 nothing. ``decoupling``
has gates for what a plan removes. Here are the gates of a whole network, for which there is no plan yet: a penalty on
``1 - a`` pulls all of them to 1 (``Recipe.gate_penalty``), the loss holds back those that matter, and so they tell
which activations can go.

That layers are decoupled by a module of their own is the abstract of "Efficient Layer Compression Without Pruning" (see
``decoupling``); what the module is, and how it is driven, is our reading. To learn whether an activation can be removed
is also the idea of Layer Folding (Ben Dror et al., BMVC 2022, arXiv 2106.09309), by its abstract.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from trt_layermerge.errors import UsageError
from trt_layermerge.merging.linear import called
from trt_layermerge.merging.rewrite import rewrite
from trt_layermerge.network.chain import Layer
from trt_layermerge.network.network import Network


class Gate(nn.Module):
    """``a * stays + (1 - a) * goes``, with ``a = floor + (1 - floor) * own``.

    Attributes:
        own: What is learned, in 0..1: ``[channels]``, or ``[1]`` for all channels alike.
        floor: The least that ``a`` may be, 0..1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.own, self.floor = nn.Parameter(torch.zeros(channels)), 0.0

    @property
    def value(self) -> Tensor:
        """``a``, in the shape of ``own``."""
        return self.floor + (1 - self.floor) * self.own

    def forward(self, stays: Tensor | float, goes: Tensor) -> Tensor:
        """Blend two tensors ``[batch, channels, height, width]``; at the ends exactly one of them."""
        gate = self.value.view(-1, 1, 1)
        return gate * stays + (1 - gate) * goes


class GatedActivation(nn.Module):
    """An activation that its gate can make the identity.

    Args:
        act: The activation.
        channels: Of its gate: one for each channel of the tensor, or 1 for all of them together.
    """

    def __init__(self, act: nn.Module, channels: int) -> None:
        super().__init__()
        self.act, self.gate = act, Gate(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``a x + (1 - a) act(x)``, ``[batch, channels, height, width]``."""
        blended: Tensor = self.gate(x, self.act(x))
        return blended


def gates_of(model: nn.Module) -> Iterator[Gate]:
    """All gates of a model."""
    return (part for part in model.modules() if isinstance(part, Gate))


def hold(model: nn.Module) -> None:
    """Bring the gates of a model back into their range, which a step of the optimiser may have led them out of."""
    for gate in gates_of(model):
        gate.own.data.clamp_(0, 1)


def nonlinearity(model: nn.Module) -> Tensor:
    """What the gates of a model leave of its activations, a scalar: the sum of the means of ``1 - a`` of each gate."""
    return sum((1 - gate.value.mean() for gate in gates_of(model)), start=torch.zeros(()))


def gated(network: Network, layers: Iterable[Layer]) -> Network:
    """A copy of a network in which the activations of some layers have gates, one each.

    Ensures: all gates are at 0, where it computes exactly what the network does; nodes keep their names.
    """
    module = rewrite(network, {})
    targets = {node.name: str(node.target) for node in module.graph.nodes if node.op == "call_module"}
    for layer in layers:
        if layer.act is not None:
            target = targets[layer.act]
            module.set_submodule(target, GatedActivation(module.get_submodule(target), channels=1))
    return replace(network, module=module.eval())


@contextmanager
def closed(module: fx.GraphModule, layers: Iterable[Layer]) -> Iterator[None]:
    """Inside, the gates of some layers are at 1, whatever they have learned: their activations are gone.

    Raises:
        UsageError: The activation of one of them has no gate.
    """
    gates = [_gate(module, layer) for layer in layers if layer.act is not None]
    before = [gate.floor for gate in gates]
    try:
        for gate in gates:
            gate.floor = 1.0
        yield
    finally:
        for gate, floor in zip(gates, before, strict=True):
            gate.floor = floor


def _gate(module: fx.GraphModule, layer: Layer) -> Gate:
    assert layer.act is not None
    part = called(module, layer.act)
    if not isinstance(part, GatedActivation):
        raise UsageError(f"the activation behind {layer.name} has no gate")
    return part.gate
