"""Batch norms that merges and fits have folded away, given back for as long as the network trains.

A convolution that takes the place of several with batch norms has none, and does not train at the rates that those were
trained at: it diverges. Here each gets a norm behind it that computes nothing, as RepVGG has it in training (Ding et
al., arXiv 2101.03697); ``fold_norms`` folds it after training as it does any other, so that what is delivered is the
same convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, fx, nn

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.lowering import layers_of
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
    found: dict[fx.Node, nn.BatchNorm2d] = {}
    for node in module.graph.nodes:
        choice = wanted.get(str(node.target)) if node.op == "call_module" else None
        norm = None if choice is None else _last_norm(network, choice)
        if norm is not None and isinstance(module.get_submodule(str(node.target)), nn.Conv2d):
            found[node] = norm
    data = [batch for batch in batches if samples_in(batch)]
    if not found or not data:
        return
    statistics = _statistics(module, found, data)
    for node, norm in found.items():
        _insert(module, node, norm, *statistics[node])
    module.recompile()


def _last_norm(network: Network, choice: Choice) -> nn.BatchNorm2d | None:
    """The last batch norm of a block's layers, whose settings the new one takes."""
    layers = [network.chains[chain].layers[index - 1] for chain, index in layers_of(network, choice.block)]
    norms = [called(network.module, layer.norm) for layer in layers if layer.norm is not None]
    return next((norm for norm in reversed(norms) if isinstance(norm, nn.BatchNorm2d)), None)


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


def _insert(module: fx.GraphModule, node: fx.Node, like: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """A norm behind a convolution that undoes its own statistics and adds the bias, which the convolution gives up."""
    conv = module.get_submodule(str(node.target))
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    norm = nn.BatchNorm2d(conv.out_channels, like.eps, like.momentum).to(conv.weight).eval()
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((norm.running_var.double() + norm.eps).sqrt())
        norm.bias.copy_(conv.bias.double() + norm.running_mean.double())
    conv.bias = None
    target = f"{node.target}_norm"
    module.add_submodule(target, norm)
    with module.graph.inserting_after(node):
        behind = module.graph.call_module(target, ())
    node.replace_all_uses_with(behind)
    behind.args = (node,)
    behind.meta = dict(node.meta)
