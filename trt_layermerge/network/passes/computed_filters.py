"""Layers whose weights are computed from parameters alone become layers with weights."""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor, fx, nn

from trt_layermerge.network.module_rules import MODULE_RULES, ModuleCall, Parameter
from trt_layermerge.network.passes.parameter_values import ParameterValues
from trt_layermerge.network.placing import attach, common_owner, free_path, operator_name, shaken


def compute_filters(module: fx.GraphModule) -> fx.GraphModule:
    """Make every operator that is a layer but for computed weights a real module.

    1. It is one if its parameters are computed from constants, such as by weight norm, spectral norm, a mask, a slice
       or a scale; or if nothing else reads them, whatever their names.
    2. A parameter of the source that something else reads too stays the source's: the two would no longer be one.
    3. It lies where the module lies that holds all that its weights are computed from, but for what parametrisations
       keep there; where that place is another layer's, under the same name with a number.
    4. Equal weights of one origin with the same settings are one module that is called more than once.

    Ensures: the same function in evaluation; training trains the computed weights as they are.
    """
    constants = ParameterValues(module)
    calls = [(node, call) for node in module.graph.nodes if (call := _layer_of(module, node, constants)) is not None]
    for node, _ in calls:
        node.args, node.kwargs = node.args[:1], {}  # what computed the weights has no reader any more
    module = shaken(module)
    made: dict[str, list[tuple[str, ModuleCall]]] = {}
    for node, call in calls:
        alike = made.setdefault(call.owner or "", [])
        path = next((path for path, other in alike if _equal(call, other)), None)
        if path is None:
            path = free_path(module, call.owner or operator_name(node))
            attach(module, path, call.module)
            alike.append((path, call))
        node.op, node.target = "call_module", path
        for result in [user for user in node.users if user.target is operator.getitem]:
            result.replace_all_uses_with(node)  # a norm that had several results
            module.graph.erase_node(result)
    module.recompile()
    return module


def _layer_of(root: nn.Module, node: fx.Node, constants: ParameterValues) -> ModuleCall | None:
    """The module that computes a node, its weights loaded, if they are all constant and may be its own."""
    rule = MODULE_RULES.get(node.target)
    if rule is None or node.op != "call_function":
        return None
    given = [arg for arg in node.args[1:] if isinstance(arg, fx.Node)]
    if not given or node.kwargs or node.args[0] in constants or not all(arg in constants for arg in given):
        return None
    if not all(_may_be_owned(arg, root) for arg in given):
        return None
    home = common_owner(name for arg in given for name in constants.names(arg))
    operator_: Any = node.target
    slots = [argument.name for argument in operator_._schema.arguments]
    args = [
        Parameter(f"{home}.{slot}", nn.Parameter(constants.value(arg))) if isinstance(arg, fx.Node) else arg
        for slot, arg in zip(slots[1:], node.args[1:], strict=False)
    ]
    call: ModuleCall | None = rule(len(node.meta["shape"]) + 1, *args) if "shape" in node.meta else None
    if call is None:
        return None
    call.module.load_state_dict({name: entry.value for name, entry in call.parameters}, strict=False)
    for name, parameter in call.module.named_parameters():
        (arg,) = (arg for slot, arg in zip(slots, node.args, strict=False) if slot == name)
        parameter.requires_grad_(isinstance(arg, fx.Node) and constants.trained(arg))
    return call


def _may_be_owned(parameter: fx.Node, root: nn.Module) -> bool:
    """Whether a layer may keep a constant for itself: it is computed, or a lone parameter that is read here alone."""
    if parameter.op != "get_attr":
        return True
    holder = root.get_submodule(str(parameter.target).rpartition(".")[0])
    alike = [node for node in parameter.graph.nodes if node.op == "get_attr" and node.target == parameter.target]
    return len(alike) == len(parameter.users) == 1 and (holder is root or type(holder) is nn.Module)


def _equal(call: ModuleCall, other: ModuleCall) -> bool:
    tensors: list[dict[str, Tensor]] = [dict(one.module.state_dict()) for one in (call, other)]
    same = repr(call.module) == repr(other.module) and tensors[0].keys() == tensors[1].keys()
    return same and all(bool((tensors[0][name] == tensors[1][name]).all()) for name in tensors[0])
