"""Reshapes find the size of the batch by themselves, instead of asking the network's input for it."""

from __future__ import annotations

import torch
from torch import fx

from trt_layermerge.network.placing import shaken

_RESHAPES = (torch.ops.aten.reshape.default, torch.ops.aten.view.default)


def infer_batch_sizes(module: fx.GraphModule) -> fx.GraphModule:
    """Let every reshape with one open size, the first, infer it.

    A source that asks a tensor for its size is exported as one that asks the network's input, for the sizes are equal:
    all that is reshaped would depend on that input beside what it is made of, and could be no part by itself.

    Requires: shapes in ``meta["shape"]``. Ensures: the same function.
    """
    for node in module.graph.nodes:
        shape = node.meta.get("shape")
        if node.target in _RESHAPES and len(node.all_input_nodes) > 1 and shape is not None and 0 not in shape:
            node.args = (node.args[0], [-1, *shape])
    return shaken(module)
