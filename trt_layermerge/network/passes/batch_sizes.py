"""What reshapes a batch, or takes it apart, finds its size by itself, instead of asking the network's input for it."""

from __future__ import annotations

from math import prod

import torch
from torch import fx

from trt_layermerge.network.placing import shaken

_RESHAPES = (torch.ops.aten.reshape.default, torch.ops.aten.view.default)
_DIVISIONS = (torch.ops.aten.chunk.default, torch.ops.aten.split.Tensor, torch.ops.aten.split_with_sizes.default)


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


def divide_batches(module: fx.GraphModule) -> fx.GraphModule:
    """Let every division of the batch into equal parts, such as the views stacked in it, be a reshape.

    How many parts there are would be what the batch decides, and an exporter would fix the batch to know it.

    Requires: shapes and multiples in ``meta``. Ensures: the same function.
    """
    graph = module.graph
    for node in [node for node in graph.nodes if node.target in _DIVISIONS]:
        batch, shape = node.args[0], node.args[0].meta.get("shape", ())
        whole, parts = batch.meta.get("multiple"), {part.meta.get("multiple") for part in node.users}
        axis = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
        if axis % (len(shape) + 1) or not whole or len(parts) != 1 or None in parts or not prod(shape):
            continue
        with graph.inserting_before(node):
            stacked = graph.call_function(_RESHAPES[0], (batch, [whole // parts.pop(), -1, *shape]))
            stacked.meta["multiple"] = None
            for part in list(node.users):
                taken = graph.call_function(torch.ops.aten.select.int, (stacked, 0, part.args[1]))
                taken.meta.update(part.meta)
                part.replace_all_uses_with(taken)
    return shaken(module)
