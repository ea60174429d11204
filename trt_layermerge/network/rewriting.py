"""An exported graph with real modules in it: convolutions, norms, activations and linear layers.

They lie under the names that they have in the source's state dict; only a source that is itself one layer gets a name
for it. The result owns a copy of all parameters and never writes in place.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from trt_layermerge.errors import ModelError
from trt_layermerge.network.module_rules import (
    ASSERTIONS,
    MODULE_RULES,
    PASS_THROUGH,
    WITHOUT_EFFECT,
    ModuleCall,
    Parameter,
    out_of_place,
)
from trt_layermerge.network.placing import attach, found, shaken, writable

NATIVE_NORM = torch.ops.aten._native_batch_norm_legit_no_training.default
"""What torch makes of a batch norm where it replaces writes by values; its first result is the norm's."""


def with_modules(source: nn.Module, program: ExportedProgram) -> fx.GraphModule:
    """Rebuild an exported graph with real modules.

    Returns:
        A graph in which every node that holds a tensor has ``meta["shape"]``, without the first dimension, and
        ``meta["multiple"]``: how many times the batch that dimension is; ``None`` if it is no multiple of it.

    Raises:
        ModelError: There is a graph inside the graph, or an output that is no tensor.
    """
    return _Rewriter(source, program).run()


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
                    hint="autocast, torch.enable_grad() and control flow cannot stand in forward()",
                )
        self._output()
        return shaken(fx.GraphModule(self.root, self.graph))

    def _bind_inputs(self) -> None:
        tensors = {**self.program.state_dict, **self.program.constants}
        placeholders = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, self.program.graph_signature.input_specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                self.values[node] = placeholder = self._with_shape(self.graph.placeholder(node.name), node)
                placeholder.meta["dtype"] = node.meta["val"].dtype
            else:
                name = str(spec.target)
                self.values[node] = Parameter(name, tensors[name])

    def _call(self, node: fx.Node) -> Any:
        """The value of one exported operator in the new graph.

        1. What only checks has none; what returns its argument has its argument's.
        2. What does nothing with these other arguments has its first argument's, or networks would differ by how their
           source spells a batch of one, a division by 1 or a cast to what a tensor is already.
        3. The sum of two tensors of one shape is ``operator.add``: skips are sought by it.
        4. An operator that is a layer calls a real module, if its parameters are the source's own and it is called on
           what the input decides; a second call with other settings, as of one filter at two dilations, stays a
           function that reads the first one's parameters, so that they stay one.
        5. Everything else stays the function that it is, in the form that writes nothing in place.
        """
        if node.target in ASSERTIONS:
            return None
        if node.target in PASS_THROUGH or self._is_norm_of(node):
            return self.values[node.all_input_nodes[0]]
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: self.values[n])
        operator_ = out_of_place(node.target)
        if operator_ in WITHOUT_EFFECT and WITHOUT_EFFECT[operator_](*args[1:], **kwargs) and _same_kind(node):
            return args[0]
        if operator_ is torch.ops.aten.add.Tensor and _both_tensors(node):
            return self._with_shape(self.graph.call_function(operator.add, tuple(self._attributes(args))), node)
        rule = MODULE_RULES.get(operator_)
        call = rule(_result(node).dim(), *args[1:], **kwargs) if rule is not None else None
        target = self._place(call, node) if call is not None else None
        if target is not None and isinstance(args[0], fx.Node):
            return self._with_shape(self.graph.call_module(target, (args[0],)), node)
        args, kwargs = self._attributes(args), self._attributes(kwargs)
        return self._with_shape(self.graph.call_function(operator_, args, kwargs), node)

    def _is_norm_of(self, node: fx.Node) -> bool:
        """Whether a node takes the first of a norm's results, and that norm is a module with one."""
        norm = node.args[0] if node.target is operator.getitem else None
        if not isinstance(norm, fx.Node) or norm.target is not NATIVE_NORM:
            return False
        value = self.values[norm]
        return isinstance(value, fx.Node) and value.op == "call_module"

    def _place(self, call: ModuleCall, node: fx.Node) -> str | None:
        """Put the module where it belongs; ``None`` if another one, of other settings, is there already."""
        if call.owner is None:
            target = self._free_name(node)
            attach(self.root, target, call.module)
            return target
        description = repr(call.module)
        if call.owner not in self.placed:
            # no owner's name: the source itself is the layer
            target = writable(call.owner, self.sources) if call.owner else self._free_name(node)
            self._load(call)
            attach(self.root, target, call.module)
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
        base = writable(base, self.sources)
        name, count = base, 0
        while found(self.root, name) is not None or (own and name in self.sources):
            count += 1
            name = f"{base}_{count}"
        return name

    def _attributes(self, args: Any) -> Any:
        """Arguments with parameters of the source as attributes of the graph."""
        if isinstance(args, Parameter):
            return self.graph.get_attr(self._hold(args))
        if isinstance(args, dict):
            return {key: self._attributes(value) for key, value in args.items()}
        if isinstance(args, (list, tuple)):
            return type(args)(self._attributes(value) for value in args)
        return args

    def _hold(self, entry: Parameter) -> str:
        """Where a parameter of the source lies."""
        path = writable(entry.name, self.program.state_dict)
        owner, _, name = path.rpartition(".")
        if owner and found(self.root, owner) is None:
            attach(self.root, owner, nn.Module())
        holder = self.root.get_submodule(owner)
        if hasattr(holder, name):
            return path
        value = entry.value.detach().clone()
        if isinstance(entry.value, nn.Parameter):
            holder.register_parameter(name, nn.Parameter(value, requires_grad=entry.value.requires_grad))
        else:
            holder.register_buffer(name, value, persistent=entry.name in self.program.state_dict)
        return path

    def _output(self) -> None:
        (node,) = (node for node in self.program.graph.nodes if node.op == "output")
        specs = self.program.graph_signature.output_specs
        given = [arg for arg, spec in zip(node.args[0], specs, strict=True) if spec.kind is OutputKind.USER_OUTPUT]
        results = [self.values[arg] if isinstance(arg, fx.Node) else arg for arg in given if arg is not None]
        inputs = {node for node in self.graph.nodes if node.op == "placeholder"}
        if not results or not all(isinstance(result, fx.Node) and _reaches(result, inputs) for result in results):
            raise ModelError(
                "the model returns what is no tensor that depends on its input",
                hint="wrap it in a module whose forward() returns the tensors that matter",
            )
        self.graph.output(results[0] if len(results) == 1 else tuple(results))

    def _with_shape(self, new: fx.Node, old: fx.Node) -> fx.Node:
        if isinstance(value := _result(old), Tensor):
            sizes = value.shape[1:]
            if all(isinstance(size, int) for size in sizes):
                new.meta["shape"] = tuple(sizes)
            new.meta["multiple"] = _multiple(value.shape[0]) if value.dim() else None
            new.meta["source"] = _source_name(old)
        return new


def _reaches(node: fx.Node, inputs: Collection[fx.Node]) -> bool:
    """Whether a node is computed from some of these, or is one."""
    todo, seen = [node], {node}
    while todo and not seen.intersection(inputs):
        new = set(todo.pop().all_input_nodes) - seen
        seen |= new
        todo += new
    return bool(seen.intersection(inputs))


def _result(node: fx.Node) -> Any:
    """What a node makes, as it was traced; the first of several results of a norm."""
    value: Any = node.meta.get("val")
    return value[0] if node.target is NATIVE_NORM else value


def _source_name(node: fx.Node) -> str:
    """The source's module that called an operator, by its path."""
    stack = [str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return stack[-1] if stack else ""


def _multiple(size: int | torch.SymInt) -> int | None:
    """How many times the batch a first dimension is, as where frames are folded into it; ``None`` if it is not.

    Several inputs, which a source may stack, have a symbol each; their batches are of one size.
    """
    if isinstance(size, int) or not (batches := size.node.expr.free_symbols):
        return None
    two, three = (int(size.node.expr.subs(dict.fromkeys(batches, samples))) for samples in (2, 3))
    return two // 2 if two % 2 == 0 and three * 2 == two * 3 else None


def _same_kind(node: fx.Node) -> bool:
    """Whether a node's result has the type of numbers that its first operand has."""
    first = node.args[0] if node.args else None
    before = first.meta.get("val") if isinstance(first, fx.Node) else None
    after = node.meta.get("val")
    return isinstance(before, Tensor) and isinstance(after, Tensor) and before.dtype == after.dtype


def _both_tensors(node: fx.Node) -> bool:
    operands = node.args[:2]
    if node.kwargs or len(node.args) != 2 or not all(isinstance(operand, fx.Node) for operand in operands):
        return False
    shapes = [getattr(operand.meta.get("val"), "shape", None) for operand in operands if isinstance(operand, fx.Node)]
    return shapes[0] is not None and shapes[0] == shapes[1]
