"""A module as ``torch.export`` sees it: a graph of ATen operators that reads its parameters by name."""

from __future__ import annotations

import inspect
import io
import logging
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from trt_layermerge.errors import ModelError, said
from trt_layermerge.usercode import place_of


def exported(source: nn.Module, example: tuple[Tensor, ...]) -> ExportedProgram:
    """Export a module in evaluation mode, its batch dynamic.

    Nothing that is written in place is read under an older name: where a view makes that possible, torch replaces every
    write by a value of its own. Elsewhere it does not, for it would leave dropout out as well.

    Raises:
        ModelError: Its ``forward()`` fails, or torch cannot follow it.
    """
    try:
        with hushed(), torch.no_grad():  # or what the source does without gradients would be a graph of its own
            program = torch.export.export(source, example, dynamic_shapes=_open_batches(source, len(example)))
            return program.run_decompositions({}) if _reads_what_was_overwritten(program.graph) else program
    except Exception as error:  # whatever the user's forward() raises, and torch.export's many own kinds
        raise untraceable(source, example, error) from error


def _open_batches(source: nn.Module, inputs: int) -> tuple[Any, ...]:
    """What is open in each of so many inputs, those together that ``forward()`` takes as ``*args``."""
    batches = [{0: Dim.DYNAMIC}] * inputs
    parameters = inspect.signature(source.forward).parameters.values()
    named = sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters)
    rest = any(one.kind is one.VAR_POSITIONAL for one in parameters) and inputs > named
    return (*batches[:named], tuple(batches[named:])) if rest else tuple(batches)


def untraceable(source: nn.Module, example: tuple[Tensor, ...], error: Exception) -> ModelError:
    """What to say of an error that ``forward()`` or torch raised."""
    message = said(error)
    shapes = ", ".join(str(tuple(value.shape)) for value in example)
    return ModelError(
        f"cannot trace {type(source).__name__} for an input of {shapes}: {message}{place_of(error)}",
        hint=next((hint for sign, hint in _HINTS.items() if sign in message), _USUAL_HINT),
    )


_USUAL_HINT = (
    "check the input shape (--input CxHxW); forward() must take one tensor, or those that INPUTS declares beside the "
    "factory, and any batch size, as x.shape[0], not as len(x)"
)
_TYPES = (
    "weights are float32 here, and so must be what they meet: take .half(), .bfloat16() and autocast out of forward(), "
    "or write x.to(self.conv.weight.dtype)"
)
_HINTS = {
    "data-dependent": "what is computed must not depend on values of the input: no if, while, float() or int() of a "
    "tensor; torch.where() chooses between tensors",
    "specialized it to be a constant": "forward() must take any batch size: x.shape[0], not len(x) or a number; a "
    "program of torch.export needs dynamic_shapes",
    "Script": "return the module that torch.jit was given, not what it made of it",
    "should be the same": _TYPES,
    "scalar type": _TYPES,
    "same datatype": _TYPES,
    "same dtype": _TYPES,
    "CUDA": "leave the choice of a device to --device: take .cuda() and device= out of forward()",
    "meta": "weights on the meta device have no values: make the model on the CPU",
}
"""What to do, by words of torch's messages."""


def _reads_what_was_overwritten(graph: fx.Graph) -> bool:
    """Whether a node reads memory that another one wrote under another name: a slice's base, or a view of it."""
    owner: dict[fx.Node, fx.Node] = {}  # of a view's memory
    stale: set[fx.Node] = set()
    for node in graph.nodes:
        if stale.intersection(node.all_input_nodes):
            return True
        first = node.args[0] if node.args else None
        if node.op != "call_function" or not isinstance(first, fx.Node):
            continue
        schema = getattr(node.target, "_schema", None)
        views = node.target is operator.getitem or (schema is not None and any(r.alias_info for r in schema.returns))
        if views:
            owner[node] = owner.get(first, first)
        if schema is not None and schema.is_mutable:
            written = owner.get(first, first)
            stale |= {written, *(view for view, memory in owner.items() if memory is written)} - {node}
    return False


@contextmanager
def hushed() -> Iterator[None]:
    """Without the warnings, logs and graph dumps of torch's own tracing: nothing that the user could act on."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
