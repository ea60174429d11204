"""Batch norms that merges and fits have folded away, given back for as long as the network trains.

A convolution that takes the place of several with batch norms has none, and does not train at the rates that those were
trained at: it diverges. Here each gets a norm behind it that computes nothing, as RepVGG has it in training (Ding et
al., arXiv 2101.03697); ``fold_norms`` folds it after training as it does any other, so that what is delivered is the
same convolution. Its filters are no shorter than those of the block's last layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.lowering import layers_of
from trt_layermerge.merging.filter_lengths import filter_length, lengthening
from trt_layermerge.merging.linear import called
from trt_layermerge.merging.norms import channel_moments
from trt_layermerge.merging.rewrite import module_name
from trt_layermerge.network.device import device_of, moved
from trt_layermerge.network.inputs import Values, samples_in
from trt_layermerge.network.network import Network


def restore_norms(
    module: fx.GraphModule, network: Network, choices: Iterable[Choice], batches: Sequence[Values]
) -> None:
    """Put a batch norm behind every convolution that has taken the place of layers with batch norms, in place.

    Requires: evaluation mode. Ensures: the same function there, up to rounding; in training mode nearly so, because
    statistics are those of the calibration data. A block in which shifts are added, or group norms are, gets none.

    Args:
        module: The network with the choices executed.
        network: The original.
        choices: Of the plan.
        batches: Calibration data, ``[batch, ...]`` for each input; without any, nothing is done.
    """
    wanted = {module_name(choice.block): choice for choice in choices if choice.kind in (Kind.FIT, Kind.MERGE)}
    found: dict[fx.Node, _Trained] = {}
    for node in module.graph.nodes:
        choice = wanted.get(str(node.target)) if node.op == "call_module" else None
        last = None if choice is None else _last_trained(network, choice)
        if last is not None and isinstance(module.get_submodule(str(node.target)), nn.Conv2d):
            found[node] = last
    data = [batch for batch in batches if samples_in(batch)]
    if not found or not data:
        return
    statistics = _statistics(module, found, data)
    for node, last in found.items():
        _insert(module, node, last, *statistics[node])
    module.recompile()


@dataclass(frozen=True)
class _Trained:
    """What a layer with a batch norm is trained with.

    Attributes:
        norm: Its settings are taken.
        length: Of the filters in front of it; 0 where that is not known.
    """

    norm: nn.BatchNorm2d
    length: float


def _last_trained(network: Network, choice: Choice) -> _Trained | None:
    """Of the last batch norm of a block's layers."""
    layers = [network.chains[chain].layers[index - 1] for chain, index in layers_of(network, choice.block)]
    for layer in reversed(layers):
        norm = None if layer.norm is None else called(network.module, layer.norm)
        if isinstance(norm, nn.BatchNorm2d):
            conv = None if layer.conv is None else called(network.module, layer.conv)
            return _Trained(norm, filter_length(conv.weight) if isinstance(conv, nn.Conv2d) else 0.0)
    return None


def _statistics(
    module: fx.GraphModule, nodes: Iterable[fx.Node], batches: Sequence[Values]
) -> dict[fx.Node, tuple[Tensor, Tensor]]:
    """Mean and variance, float64, of each channel of what convolutions make of the data, their biases left out."""
    sums: dict[fx.Node, Tensor] = {}

    def adding(node: fx.Node, bias: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def add(_conv: nn.Module, _given: tuple[Tensor, ...], result: Tensor) -> None:
            mean, variance = channel_moments(result)
            mean, count = mean - bias, result.numel() // len(bias)
            added = count * torch.stack([torch.ones_like(mean), mean, variance + mean.square()])
            sums[node] = sums.get(node, torch.zeros_like(added)) + added

        return add

    hooks = []
    for node in nodes:
        conv = module.get_submodule(str(node.target))
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        hooks.append(conv.register_forward_hook(adding(node, conv.bias.detach().double())))
    with torch.inference_mode():
        for batch in batches:
            module(*moved(batch, device_of(module)))
    for hook in hooks:
        hook.remove()
    means = {node: (total / count, squares / count) for node, (count, total, squares) in sums.items()}
    return {node: (mean, (square - mean.square()).clamp_min(0)) for node, (mean, square) in means.items()}


def _insert(module: fx.GraphModule, node: fx.Node, last: _Trained, mean: Tensor, variance: Tensor) -> None:
    """A norm behind a convolution that undoes its own statistics and adds the bias, which the convolution gives up."""
    conv, like = module.get_submodule(str(node.target)), last.norm
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    norm = nn.BatchNorm2d(conv.out_channels, like.eps, like.momentum).to(conv.weight).eval()
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        scales = lengthening(last.length, conv.weight)
        conv.weight.mul_(scales[:, None, None, None])
        norm.running_mean.copy_(mean * scales)
        norm.running_var.copy_(variance * scales.square())
        norm.weight.copy_((norm.running_var.double() + norm.eps).sqrt() / scales)
        norm.bias.copy_(conv.bias.double() + norm.running_mean.double() / scales)
    conv.bias = None
    target = f"{node.target}_norm"
    module.add_submodule(target, norm)
    with module.graph.inserting_after(node):
        behind = module.graph.call_module(target, ())
    node.replace_all_uses_with(behind)
    behind.args = (node,)
    behind.meta = dict(node.meta)
