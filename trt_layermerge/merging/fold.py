"""Folding batch norms into the convolutions before them, transposed ones too, over a whole network."""

from __future__ import annotations

import copy

from torch import fx, nn

from trt_layermerge.merging.algebra import from_modules, identity, normalised, to_module
from trt_layermerge.network.placing import called_module, reader_counts, shaken


def fold_norms(module: fx.GraphModule) -> fx.GraphModule:
    """A copy in which every batch norm that directly follows a convolution is folded into it.

    Requires: evaluation mode is what counts. Ensures: the same function there, computed in float64 and rounded once;
    ``proof.py`` shows it.
    """
    return fold_in_place(copy.deepcopy(module))


def fold_in_place(module: fx.GraphModule) -> fx.GraphModule:
    """As ``fold_norms``, of a module that is needed no more: what is returned shares its other weights."""
    for conv, norm in norm_pairs(module):
        source, norm_module = (module.get_submodule(str(node.target)) for node in (conv, norm))
        module.set_submodule(str(conv.target), with_norm(source, norm_module))
        norm.replace_all_uses_with(conv)
        module.graph.erase_node(norm)
    return shaken(module).eval()


def with_norm(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """A convolution and the batch norm behind it as one, computed in float64 and rounded to the convolution's type."""
    if isinstance(conv, nn.Conv2d):
        return to_module(from_modules(conv, norm), conv.weight.dtype)
    assert isinstance(conv, nn.ConvTranspose2d)
    like, groups, channels = conv.weight, conv.groups, conv.out_channels
    scaling = normalised(identity(channels, device=like.device), norm)
    scale = scaling.weight.reshape(groups, 1, channels // groups, 1, 1)
    weight = like.detach().double().reshape(groups, -1, *like.shape[1:]) * scale
    bias = scaling.bias if conv.bias is None else conv.bias.detach().double() * scaling.weight.flatten() + scaling.bias
    folded = copy.deepcopy(conv)
    folded.weight, folded.bias = nn.Parameter(weight.reshape(like.shape).to(like)), nn.Parameter(bias.to(like))
    return folded


def norm_pairs(module: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Every convolution whose result goes into a batch norm alone, with that norm; nothing else reads their weights."""
    readers = reader_counts(module)
    pairs = []
    for norm in module.graph.nodes:
        if not isinstance(called_module(module, norm), nn.BatchNorm2d) or readers[str(norm.target)] > 1:
            continue
        conv = norm.all_input_nodes[0]
        alone = len(conv.users) == 1 and readers[str(conv.target)] == 1
        if alone and isinstance(called_module(module, conv), nn.Conv2d | nn.ConvTranspose2d):
            pairs.append((conv, norm))
    return pairs
