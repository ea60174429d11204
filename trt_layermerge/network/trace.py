"""The front door: a PyTorch module becomes its normal form, a trainable graph of real modules.

``torch.export`` gives the graph in ATen operators, with the batch dimension dynamic; ``rewriting.py`` makes modules of
its layers, and the passes of ``passes/`` take what is written in other ways into those layers. What evaluation mode
leaves out of a graph, such as stochastic depth, is not in the normal form either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from trt_layermerge.network.agreement import require_agreement
from trt_layermerge.network.exporting import exported, hushed, untraceable
from trt_layermerge.network.inputs import Input, as_inputs, examples
from trt_layermerge.network.outputs import let_export_return, name_outputs, named_outputs
from trt_layermerge.network.padding import absorb_padding
from trt_layermerge.network.passes.batch_sizes import divide_batches, infer_batch_sizes
from trt_layermerge.network.passes.channel_maps import fold_channel_maps
from trt_layermerge.network.passes.computed_filters import compute_filters
from trt_layermerge.network.passes.constant_borders import shift_constant_borders
from trt_layermerge.network.rewriting import with_modules
from trt_layermerge.network.unwrap import in_evaluation

PASSES: tuple[Callable[[fx.GraphModule], fx.GraphModule], ...] = (
    infer_batch_sizes,
    divide_batches,
    compute_filters,  # before the others, which look at layers
    shift_constant_borders,  # leaves shifts to the next
    fold_channel_maps,  # before padding is part of a convolution, which then takes no shift
    absorb_padding,
)


def normal_form(source: nn.Module, given: Sequence[int] | Sequence[Input]) -> fx.GraphModule:
    """Trace a module and rewrite it; the result is checked to compute what the source computes.

    Args:
        source: Takes its inputs, ``[batch, *shape]`` each, and returns tensors; it is left as it was.
        given: The inputs; a shape alone means one of real numbers.

    Returns:
        The normal form, in evaluation mode, which returns one tensor, or a tuple of several (``outputs.py``). Every
        node that holds a tensor has ``meta["shape"]``, without the batch.

    Raises:
        ModelError: The module cannot be traced for these inputs, or the normal form differs from it.
    """
    example = examples(as_inputs(given), batch=2)
    with _evaluating(source):
        with _remembering_nothing(source):
            expected = _outputs(source, example)
        with _remembering_nothing(source):
            program = exported(source, example)
        module = with_modules(source, program)
        for rewrite in PASSES:
            module = rewrite(module)
        module.eval()
        name_outputs(module, tuple(expected))
        require_agreement(type(source).__name__, module, example, tuple(expected.values()))
    return module


def _outputs(source: nn.Module, example: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """What the source returns, by name."""
    try:
        with torch.no_grad(), hushed():
            result: Any = source(*(value.clone() for value in example))  # which it may write into
    except Exception as error:  # whatever the user's forward() raises
        raise untraceable(source, example, error) from error
    let_export_return(result)
    names = getattr(source, "output_names", None)  # a file has names for what it returns
    found = named_outputs(result)
    return dict(zip(names, found.values(), strict=True)) if names else found


@contextmanager
def _remembering_nothing(source: nn.Module) -> Iterator[None]:
    """Take back what ``forward()`` keeps for its next call, such as a grid for this very batch, or a moving average."""
    modules = [module for module in source.modules() if not isinstance(module, torch.jit.ScriptModule)]
    before = [(module, vars(module).copy(), dict(module._buffers)) for module in modules]
    copies = {value: value.clone() for value in source.buffers()}
    for module, _, buffers in before:
        module._buffers.update({name: copies.get(value) for name, value in buffers.items() if value is not None})
    try:
        yield
    finally:
        for module, attributes, buffers in before:
            for name in vars(module).keys() - attributes:
                del vars(module)[name]
            vars(module).update(attributes)
            for name in module._buffers.keys() - buffers:
                del module._buffers[name]
            module._buffers.update(buffers)


@contextmanager
def _evaluating(source: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets back the flag that it had."""
    flags = [(module, module.training) for module in source.modules()]
    in_evaluation(source)
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training
