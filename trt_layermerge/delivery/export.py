"""ONNX from a network: inputs and outputs by name, dynamic batch, opset 18, weights inside the file."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch import nn
from torch.export import Dim

from trt_layermerge.errors import ModelError
from trt_layermerge.files import replacing
from trt_layermerge.network.inputs import INPUT as INPUT
from trt_layermerge.network.inputs import Input, as_inputs, examples
from trt_layermerge.network.outputs import OUTPUT as OUTPUT
from trt_layermerge.network.outputs import output_names
from trt_layermerge.onnxfile import OPSET


def export_onnx(module: nn.Module, given: Sequence[int] | Sequence[Input], path: Path) -> None:
    """Write a network as ONNX; its outputs are called what the normal form calls them, or ``output``.

    Args:
        module: In evaluation mode.
        given: Its inputs; a shape alone means one of real numbers, called ``input``.
        path: Where to; replaced as a whole.

    Raises:
        ModelError: torch's exporter cannot express the network in ONNX.
    """
    with replacing(path) as neighbour:
        try:
            _program(module.eval(), as_inputs(given)).save(neighbour, external_data=False)
            onnx.checker.check_model(neighbour, full_check=True)
        except (RuntimeError, TypeError, ValueError, onnx.checker.ValidationError) as error:
            raise ModelError(
                f"the network cannot be written as ONNX: {why_not(error)}",
                hint="write that part of forward() with operations that ONNX has; there, groups and strides are fixed "
                "numbers, none that the batch decides",
            ) from error


def why_not(error: BaseException) -> str:
    """What torch's exporter fails at: it says of itself that it fails, and in the causes of that at what and why."""
    operator = None
    while error.__cause__ is not None:
        found = re.search(r"translating node .*target=([\w.]+)", str(error))
        operator, error = found[1] if found else operator, error.__cause__
    words = str(error).strip().splitlines() or [type(error).__name__]
    return words[0] if operator is None else f"{words[0]} (at {operator})"


def _program(module: nn.Module, inputs: Sequence[Input]) -> torch.onnx.ONNXProgram:
    """What is written; it depends on nothing else."""
    batch = Dim("batch")
    with quiet():
        program = torch.onnx.export(
            module,
            examples(inputs, batch=2),  # one would be taken for a fixed batch
            input_names=[item.name for item in inputs],
            output_names=list(output_names(module)),
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            optimize=False,
        )
        assert program is not None
        _keep_small_terms(program)
        program.optimize()
    shapes = [value.shape for value in program.model.graph.inputs[: len(inputs)]]
    if not all(shape is not None and isinstance(shape[0], ir.SymbolicDim) for shape in shapes):
        raise ValueError("torch's exporter takes a size that depends on the batch for a fixed one")
    _name_ends(program, [item.name for item in inputs], output_names(module))
    _leave_names_to_the_ends(program)
    return program


def _keep_small_terms(program: torch.onnx.ONNXProgram) -> None:
    """Give what is nearly 0 or 1 a dimension: its optimiser takes a scalar within 1e-8 for 0, within 1e-5 for 1.

    It drops what adds, subtracts, multiplies or divides by these, such as the ``1e-10`` that keeps a logarithm finite.
    """
    graph = program.model.graph
    for node in list(graph):
        for index, value in enumerate(node.inputs if node.op_type in _NEUTRAL else ()):
            constant = None if value is None else ir.convenience.get_const_tensor(value)
            if constant is None or constant.shape.dims or not constant.dtype.is_floating_point():
                continue
            number, neutral = constant.numpy().item(), _NEUTRAL[node.op_type]
            if number != neutral and math.isclose(number, neutral, rel_tol=1e-4, abs_tol=1e-7):
                kept = ir.Value(
                    name=f"{node.outputs[0].name}_{index}_constant",
                    const_value=ir.tensor(constant.numpy().reshape(1)),
                    shape=ir.Shape([1]),
                    type=ir.TensorType(constant.dtype),
                )
                graph.register_initializer(kept)
                node.replace_input_with(index, kept)


_NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}
"""Operations, and what makes nothing of them."""


def _name_ends(program: torch.onnx.ONNXProgram, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name inputs and outputs once more: the optimiser gives one value that is several of them a copy with a new name.

    An input that is returned is an output as a copy. What a module returns beyond its names, torch has named.
    """
    graph = program.model.graph
    for index, value in enumerate(graph.outputs):
        if value.is_graph_input():
            copy = ir.node("Identity", [value])
            copy.outputs[0].shape, copy.outputs[0].type = value.shape, value.type
            graph.append(copy)
            graph.outputs[index] = copy.outputs[0]
    ends = (*graph.inputs[: len(inputs)], *graph.outputs[: len(outputs)])
    for value, name in zip(ends, (*inputs, *outputs), strict=True):
        value.name = name


def _leave_names_to_the_ends(program: torch.onnx.ONNXProgram) -> None:
    """Rename what is called as an input or an output is: torch's exporter gives values inside such names unasked."""
    graph = program.model.graph
    ends = (*graph.inputs, *graph.outputs)
    computed = [value for node in graph for value in node.outputs]
    inside = [value for value in (*graph.initializers.values(), *computed) if all(value is not end for end in ends)]
    names, taken = {end.name for end in ends}, {value.name for value in (*ends, *inside)}
    for value in inside:
        if value.name in names:
            value.name = next(name for number in count() if (name := f"{value.name}_{number}") not in taken)
            taken.add(value.name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's exporter from printing its progress and internal warnings."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
