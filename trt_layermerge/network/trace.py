"""The front door: a PyTorch module becomes its normal form, a trainable graph of real modules.

``torch.export`` gives the graph in ATen operators, with the batch dimension dynamic; the rules of ``operators.py`` turn
convolutions, norms, activations and linear layers into modules under the names that they have in the source's state
dict; only a source that is itself one layer gets a name for it. The normal form owns a copy of all parameters and never
writes in place. What evaluation mode leaves out of a graph, such as stochastic depth, is not in the normal form either.
"""

from __future__ import annotations

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
from torch.export.graph_signature import InputKind
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from trt_layermerge.errors import ModelError
from trt_layermerge.network.operators import (
    ASSERTIONS,
    MODULE_RULES,
    PASS_THROUGH,
    ModuleCall,
    Parameter,
    out_of_place,
)
from trt_layermerge.network.padding import absorb_padding

TOLERANCE = 1e-4
"""Largest relative error between the source and its normal form, float32."""


def normal_form(source: nn.Module, input_shape: tuple[int, ...]) -> fx.GraphModule:
    """Trace a module and rewrite it; the result is checked to compute what the source computes.

    Args:
        source: Takes one tensor ``[batch, *input_shape]`` and returns one tensor; it is left as it was.
        input_shape: Shape of one sample, without the batch.

    Returns:
        The normal form, in evaluation mode. Every node that holds a tensor has ``meta["shape"]``, without the batch.

    Raises:
        ModelError: The module cannot be traced for this input, or the normal form differs from it.
    """
    example = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    with _evaluating(source):
        module = _Rewriter(source, _export(source, example)).run()
        absorb_padding(module)
        module.eval()
        _check(source, module, example)
    return module


@contextmanager
def _evaluating(source: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets back the flag that it had."""
    flags = [(module, module.training) for module in source.modules()]
    source.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


def _export(source: nn.Module, example: Tensor) -> ExportedProgram:
    try:
        with _hushed():
            return torch.export.export(source, (example,), dynamic_shapes=({0: Dim.DYNAMIC},))
    except Exception as error:  # whatever the user's forward() raises, and torch.export's many own kinds
        message = " ".join(str(error).split())[:400]
        raise ModelError(
            f"cannot trace {type(source).__name__} for an input of {tuple(example.shape)}: {message}",
            hint="check the input shape (--input CxHxW); forward() must take one tensor and any batch size",
        ) from error


@contextmanager
def _hushed() -> Iterator[None]:
    """Without the warnings, logs and graph dumps of torch's own tracing: nothing that the user could act on."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _check(source: nn.Module, module: nn.Module, example: Tensor) -> None:
    name = type(source).__name__
    with torch.no_grad():
        try:
            expected, actual, alone = source(example), module(example), module(example[:1])
        except RuntimeError as failure:
            raise ModelError(f"the normal form of {name} does not run: {failure}") from failure
    if not expected.is_floating_point():
        raise ModelError(
            f"{name} returns {expected.dtype}, which cannot be trained",
            hint="return the scores themselves, before argmax or the like",
        )
    error = _relative_error(actual, expected)
    if not error <= TOLERANCE:  # also true for NaN
        raise ModelError(
            f"the normal form of {name} differs from it by {error:.1e} of its largest output",
            hint="random operations in evaluation mode, writing into a part of a tensor, and outputs that are not "
            "finite cannot be worked with",
        )
    apart = getattr(source, "samples_apart", False)  # a source that was freed of a fixed batch promises it
    if apart and (alone.shape != actual[:1].shape or not _relative_error(alone, actual[:1]) <= TOLERANCE):
        raise ModelError(
            f"{name} does not compute each sample of a batch by itself",
            hint="one result for each sample is needed; export an ONNX file with a dynamic batch",
        )


def _relative_error(actual: Tensor, expected: Tensor) -> float:
    scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float((actual - expected).abs().max() / scale)


class _Rewriter:
    """Rebuilds an exported graph node by node."""

    def __init__(self, source: nn.Module, program: ExportedProgram) -> None:
        self.sources = dict(source.named_modules(remove_duplicate=False))
        self.program = program
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[fx.Node, Any] = {}
        self.placed: dict[str, tuple[str, str]] = {}  # owner -> path and description of its module

    def run(self) -> fx.GraphModule:
        self._bind_inputs()
        for node in self.program.graph.nodes:
            if node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "get_attr":
                raise ModelError(
                    f"the model has a graph inside its graph ({next(iter(node.users), node).name})",
                    hint="torch.no_grad(), autocast and control flow cannot stand in forward()",
                )
        self._output()
        module = fx.GraphModule(self.root, self.graph)
        module.graph.eliminate_dead_code()
        module.graph.lint()
        module.recompile()
        return module

    def _bind_inputs(self) -> None:
        tensors = {**self.program.state_dict, **self.program.constants}
        placeholders = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, self.program.graph_signature.input_specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                self.values[node] = self._with_shape(self.graph.placeholder(node.name), node)
            else:
                name = str(spec.target)
                self.values[node] = Parameter(name, tensors[name])

    def _call(self, node: fx.Node) -> Any:
        if node.target in ASSERTIONS:
            return None
        if node.target in PASS_THROUGH:
            return self.values[node.all_input_nodes[0]]
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: self.values[n])
        operator_ = out_of_place(node.target)
        if operator_ is torch.ops.aten.add.Tensor and _both_tensors(node):
            return self._with_shape(self.graph.call_function(operator.add, tuple(args)), node)
        rule = MODULE_RULES.get(operator_)
        call = rule(node.meta["val"].dim(), *args[1:], **kwargs) if rule is not None else None
        target = self._place(call, node) if call is not None else None
        if target is not None and isinstance(args[0], fx.Node):
            return self._with_shape(self.graph.call_module(target, (args[0],)), node)
        args, kwargs = self._attributes(args), self._attributes(kwargs)
        return self._with_shape(self.graph.call_function(operator_, args, kwargs), node)

    def _place(self, call: ModuleCall, node: fx.Node) -> str | None:
        """Put the module where it belongs; ``None`` if another one, of other settings, is there already."""
        if call.owner is None:
            target = self._free_name(node)
            _attach(self.root, target, call.module)
            return target
        description = repr(call.module)
        if call.owner not in self.placed:
            target = call.owner or self._free_name(node)  # no owner's name: the source itself is the layer
            self._load(call)
            _attach(self.root, target, call.module)
            self.placed[call.owner] = target, description
        target, present = self.placed[call.owner]
        return target if present == description else None

    def _load(self, call: ModuleCall) -> None:
        original = self.sources.get(call.owner or "")
        if isinstance(original, BatchNorm) and isinstance(call.module, BatchNorm):
            call.module.momentum = original.momentum  # None, a running mean, is 0 in a graph of evaluation mode
        state = {name: entry.value.detach().clone() for name, entry in call.parameters}
        counter = self.program.state_dict.get(f"{call.owner}.num_batches_tracked")
        if counter is not None:
            state["num_batches_tracked"] = counter.detach().clone()
        call.module.load_state_dict(state, strict=False)
        for name, parameter in call.module.named_parameters():
            source = dict(call.parameters)[name].value
            parameter.data = parameter.data.to(source.dtype)
            parameter.requires_grad_(source.requires_grad)

    def _free_name(self, node: fx.Node) -> str:
        """The name that the source's own module has, with a number where it was called before.

        A function called by a module that holds others or parameters is named beneath that module.
        """
        stack = list(node.meta.get("nn_module_stack", {}).values())
        base = str(stack[-1][0]) if stack else ""
        module = self.sources.get(base)
        if own := module is None or any(module.children()) or bool(module.state_dict()) or not base:
            base = ".".join(filter(None, (base, out_of_place(node.target).__name__.partition(".")[0])))
        name, count = base, 0
        while _find(self.root, name) is not None or (own and name in self.sources):
            count += 1
            name = f"{base}_{count}"
        return name

    def _attributes(self, args: Any) -> Any:
        """Arguments with parameters of the source as attributes of the graph."""
        if isinstance(args, Parameter):
            self._hold(args)
            return self.graph.get_attr(args.name)
        if isinstance(args, dict):
            return {key: self._attributes(value) for key, value in args.items()}
        if isinstance(args, (list, tuple)):
            return type(args)(self._attributes(value) for value in args)
        return args

    def _hold(self, entry: Parameter) -> None:
        owner, _, name = entry.name.rpartition(".")
        if owner and _find(self.root, owner) is None:
            _attach(self.root, owner, nn.Module())
        holder = self.root.get_submodule(owner)
        if hasattr(holder, name):
            return
        value = entry.value.detach().clone()
        if isinstance(entry.value, nn.Parameter):
            holder.register_parameter(name, nn.Parameter(value, requires_grad=entry.value.requires_grad))
        else:
            holder.register_buffer(name, value, persistent=entry.name in self.program.state_dict)

    def _output(self) -> None:
        (node,) = (node for node in self.program.graph.nodes if node.op == "output")
        results = fx.map_arg(node.args[0], lambda n: self.values[n])
        form = self.program.call_spec.out_spec
        if form is None or not form.is_leaf() or not isinstance(results[0], fx.Node):
            kind = "no tensor" if form is None or form.is_leaf() else f"a {form.type.__name__} of {len(results)}"
            raise ModelError(
                f"the model returns {kind}; one tensor is needed",
                hint="wrap it in a module whose forward() returns the tensor that matters",
            )
        self.graph.output(results[0])

    def _with_shape(self, new: fx.Node, old: fx.Node) -> fx.Node:
        value = old.meta.get("val")
        if isinstance(value, Tensor):
            sizes = value.shape[1:]
            if all(isinstance(size, int) for size in sizes):
                new.meta["shape"] = tuple(sizes)
        return new


def _both_tensors(node: fx.Node) -> bool:
    operands = node.args[:2]
    if node.kwargs or len(node.args) != 2 or not all(isinstance(operand, fx.Node) for operand in operands):
        return False
    shapes = [getattr(operand.meta.get("val"), "shape", None) for operand in operands if isinstance(operand, fx.Node)]
    return shapes[0] is not None and shapes[0] == shapes[1]


def _find(root: nn.Module, path: str) -> nn.Module | None:
    try:
        return root.get_submodule(path)
    except AttributeError:
        return None


def _attach(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a dotted path, making plain modules on the way and keeping what is at the path already."""
    *parents, last = path.split(".")
    for name in parents:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    if last in root._modules:
        present = root.get_submodule(last)
        for name, child in present.named_children():
            module.add_module(name, child)
        for name, parameter in present.named_parameters(recurse=False):
            if not hasattr(module, name):
                module.register_parameter(name, parameter)
        for name, buffer in present.named_buffers(recurse=False):
            if not hasattr(module, name):
                module.register_buffer(name, buffer, persistent=name not in present._non_persistent_buffers_set)
    root.add_module(last, module)
