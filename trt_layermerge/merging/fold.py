"""Folding batch norms into the convolutions before them, over a whole network."""

from __future__ import annotations

import copy

from torch import fx, nn

from trt_layermerge.merging.algebra import from_modules, to_module
from trt_layermerge.merging.rewrite import tidy
from trt_layermerge.network.placing import reader_counts


def fold_norms(module: fx.GraphModule) -> fx.GraphModule:
    """A copy in which every batch norm that directly follows a convolution is folded into it.

    Requires: evaluation mode is what counts. Ensures: the same function there, computed in float64 and rounded once;
    ``proof.py`` shows it.
    """
    module = copy.deepcopy(module).eval()
    for conv, norm in norm_pairs(module):
        source = module.get_submodule(str(conv.target))
        assert isinstance(source, nn.Conv2d)
        folded = from_modules(source, module.get_submodule(str(norm.target)))
        module.set_submodule(str(conv.target), to_module(folded, source.weight.dtype))
        norm.replace_all_uses_with(conv)
        module.graph.erase_node(norm)
    return tidy(module).eval()


def norm_pairs(module: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Every convolution whose result goes into a batch norm alone, with that norm; nothing else reads their weights."""
    readers = reader_counts(module)
    pairs = []
    for norm in module.graph.nodes:
        if not _is(module, norm, nn.BatchNorm2d) or readers[str(norm.target)] > 1:
            continue
        conv = norm.all_input_nodes[0]
        if len(conv.users) == 1 and readers[str(conv.target)] == 1 and _is(module, conv, nn.Conv2d):
            pairs.append((conv, norm))
    return pairs


def _is(module: fx.GraphModule, node: fx.Node, kind: type[nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), kind)
