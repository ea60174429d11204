"""The module that computes an ONNX graph: layers as children under the names of their weights, the rest as functions.

It runs its nodes one after the other. ``torch.export`` sees through that; nothing of it is left in the normal form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from keyword import kwlist
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trt_layermerge.errors import ModelError, said
from trt_layermerge.network.inputs import Values
from trt_layermerge.network.onnx_import.functions import OF_ONE, OF_TENSORS, typed_cast
from trt_layermerge.network.onnx_import.gated_products import fuse_activations
from trt_layermerge.network.onnx_import.layers import LAYERS, UnsupportedError, layer, parameter
from trt_layermerge.network.onnx_import.onnx_graph import Node, OnnxArray, OnnxGraph
from trt_layermerge.network.onnx_import.sizes import SIZES, on_sizes, shape
from trt_layermerge.network.placing import RESERVED
from trt_layermerge.probe import DAMAGED

_RESERVED = RESERVED.union(kwlist)
"""What the code that torch.fx writes of a module cannot call it."""

_WITHOUT = "export the model so that it does without, or the part of it that does"
_FIT = "if --input says of which shape it was exported, what the file says does not fit together: export it again"

SUPPORTED = sorted({*LAYERS, *OF_TENSORS, *OF_ONE, "Shape"})


@dataclass(frozen=True)
class _Step:
    """One node, ready to run: what to call, on which values, and what the results are called."""

    node: Node
    call: Callable[..., Any]
    inputs: tuple[str, ...]


class OnnxNetwork(nn.Module):
    """An ONNX graph as a PyTorch module.

    Weights are parameters, named as the file names them (``conv1.weight``), or else after the node that they belong to.
    Constants of several numbers that come from the file's weights are parameters too; a single number is a number.

    Attributes:
        output_names: As in the file.
    """

    def __init__(self, graph: OnnxGraph, where: str) -> None:
        """Build the layers.

        Args:
            graph: What to compute.
            where: What to call it in messages.

        Raises:
            ModelError: There are operators that we do not know; all of them are named.
        """
        super().__init__()
        graph = fuse_activations(graph)
        _require_known(graph, where)
        self._graph, self._where = graph, where
        self.output_names = graph.outputs
        self._settings: dict[str, Any] = {"": None}
        self._tensors: dict[str, str] = {}
        self._layers: dict[Any, nn.Module] = {}
        self._sizes: set[str] = set()
        self._steps = []
        for node in graph.nodes:
            with self._at(node):
                self._steps.append(self._step(node))

    def forward(self, x: Tensor, *others: Tensor) -> Values:
        """Compute the output for samples ``[batch, ...]``, images or others, or a tuple of several."""
        results = self.computed(x, *others)
        return results[0] if len(results) == 1 else results

    def computed(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Compute all outputs for values of all inputs, in the order of the graph's."""
        held = {name: _attribute(self, path) for name, path in self._tensors.items()}
        values: dict[str, Any] = {**self._settings, **held, **dict(zip(self._graph.inputs, given, strict=True))}
        for step in self._steps:
            with self._at(step.node):
                result = step.call(*(values[name] for name in step.inputs))
            names = step.node.outputs
            if isinstance(result, list) and len(names) > 1:
                values.update((name, one) for name, one in zip(names, result, strict=False) if name)
            else:
                values[names[0]] = result
        results = tuple(values[name] for name in self.output_names)
        if not all(isinstance(result, Tensor) for result in results):
            raise ModelError(f"{self._where} returns sizes, not a tensor", hint="export the model without this output")
        return results

    @contextmanager
    def _at(self, node: Node) -> Iterator[None]:
        """Name the node in whatever goes wrong with it."""
        try:
            yield
        except UnsupportedError as error:
            raise ModelError(f"{self._where}: {node} cannot be read: {error}", hint=_WITHOUT) from error
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{self._where}: {node} cannot be computed: {said(error)}", hint=_FIT) from error
        except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
            why = "it lacks an input or an attribute, or one is of another kind"
            raise ModelError(f"{self._where}: {node} cannot be computed: {why}", hint=DAMAGED) from error

    def _step(self, node: Node) -> _Step:
        constants = self._graph.constants
        sizes = [name in self._sizes for name in node.inputs]
        known = [size or name in constants or not name for size, name in zip(sizes, node.inputs, strict=True)]
        if node.op == "Shape" or (on_sizes(node) and any(sizes) and all(known)):
            self._sizes.update(node.outputs)
            objects = {name: constants[name].astype(object) for name in node.inputs if name in constants}
            inputs = tuple(self._setting(name, objects.get(name)) for name in node.inputs)
            return _Step(node, SIZES.get(node.op, shape)(node), inputs)
        rest = [constants.get(name) for name in node.inputs[1:] if name and not self._is_no_bias(node, name)]
        module = None if node.inputs[0] in constants else self._layer(node, rest)
        if module is not None:
            return _Step(node, module, node.inputs[:1])
        if node.op not in OF_TENSORS | OF_ONE:
            raise UnsupportedError("its weights are not constant, but computed")
        if node.op in OF_TENSORS:
            call = _with_numbers(OF_TENSORS[node.op](node))
            return _Step(node, call, tuple(self._operand(node, name) for name in node.inputs))
        settings = (self._setting(name, constants.get(name)) for name in node.inputs[1:])
        rule = typed_cast if node.op == "Cast" and self._graph.typed else OF_ONE[node.op]
        return _Step(node, rule(node), (self._operand(node, node.inputs[0]), *settings))

    def _is_no_bias(self, node: Node, name: str) -> bool:
        """Whether an exporter filled in zeros for the bias that a convolution did not have."""
        array = self._graph.constants.get(name)
        filled_in = array is not None and name not in self._graph.origins and not array.any()
        return filled_in and node.op == "Conv" and name in node.inputs[2:]

    def _layer(self, node: Node, constants: list[OnnxArray | None]) -> nn.Module | None:
        key = (node.op, node.inputs[1:], repr(sorted(node.attributes.items())))
        if key not in self._layers:  # the same weights twice are one module called twice
            module = layer(node, constants)
            if module is None:
                return None
            _attach(self, self._free_path(self._home(node)), module)
            self._layers[key] = module
        return self._layers[key]

    def _home(self, node: Node) -> str:
        """Where a layer goes: to where its weight was, else to the place that the node's name says."""
        origin = self._graph.origins.get(node.inputs[1], "")
        if origin.endswith(".weight"):
            return origin.removesuffix(".weight")
        places: list[str] = []
        for place in node.name.split("/"):  # /layer1/layer1.0/conv/Conv, as torch's older exporter writes it
            if places and place.startswith(f"{places[-1]}."):
                places.pop()
            places.append(place)
        if len(places) > 1 and places[-1].partition("_")[0] == node.op:
            places.pop()
        return ".".join(places)

    def _operand(self, node: Node, name: str) -> str:
        """A tensor, or a constant as a parameter, a buffer or a number."""
        array = self._graph.constants.get(name)
        if array is None or name in self._settings or name in self._tensors:
            return name
        if array.shape in ((), (1,)) and node.op in OF_TENSORS and node.op != "Concat":
            self._settings[name] = array.item()
            return name
        origin = self._graph.origins.get(name)
        path = self._free_path(origin or f"{node.name}.constant")
        trained = origin is not None and array.dtype.kind == "f"
        _attach(self, path, parameter(array) if trained else torch.from_numpy(array.copy()))
        self._tensors[name] = path
        return name

    def _setting(self, name: str, constant: OnnxArray | None) -> str:
        """A constant that is no tensor, under a name of its own: others may take the same one for a tensor."""
        if constant is None:
            return name
        alias = f"{name} as {constant.dtype}"
        self._settings[alias] = constant
        return alias

    def _free_path(self, wanted: str) -> str:
        """A place in the state dict that is nobody's yet, as near to the wanted one as names allow."""
        parts = [part for part in re.split(r"[^0-9A-Za-z_]+", wanted) if part] or ["layer"]
        for index, part in enumerate(parts):
            holder = _attribute(self, ".".join(parts[:index])) if index else self
            held = hasattr(holder, part) and not isinstance(getattr(holder, part), nn.Module)  # such as a bias of None
            if part in _RESERVED or (index + 1 < len(parts) and held):
                parts[index] = f"{part}_"  # a method of modules, or a parameter of just this name
        base = path = ".".join(parts)
        count = 0
        while not _is_free(self, path):
            count += 1
            path = f"{base}_{count}"
        return path


def _require_known(graph: OnnxGraph, where: str) -> None:
    unknown = [node for node in graph.nodes if node.op not in SUPPORTED]
    if unknown:
        shown = ", ".join(str(node) for node in unknown[:3])
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise ModelError(
            f"{where} has operators that are not supported: {shown}{more}",
            hint=next(
                (hint for ops, hint in _HINTS.items() if any(node.op in ops for node in unknown)),
                f"supported, of ONNX's own domain: {', '.join(SUPPORTED)}",
            ),
        )


_HINTS = {
    (
        "QuantizeLinear",
        "DequantizeLinear",
        "QLinearConv",
        "ConvInteger",
        "DynamicQuantizeLinear",
    ): "it is quantised; give the network of floats that it was made from, and --precision int8 quantises the result",
    (
        "NonMaxSuppression",
        "NonZero",
    ): "let the network end before that, at its boxes and scores: how many there are then depends on their values",
}
"""What to do about operators that networks of another kind have."""


def _with_numbers(call: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors that takes a size for a number, and several for a tensor."""

    def number(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        return value.item() if value.size == 1 else torch.tensor(value.tolist())

    return lambda *values: call(*map(number, values))


def _is_free(root: nn.Module, path: str) -> bool:
    parent, _, last = path.rpartition(".")
    return not hasattr(_attribute(root, parent) if parent else root, last)


def _attribute(root: nn.Module, path: str) -> Any:
    value: Any = root
    for name in path.split("."):
        value = getattr(value, name, None)
    return value


def _attach(root: nn.Module, path: str, value: nn.Module | Tensor) -> None:
    """Put a module, a parameter or a buffer at a dotted path."""
    *parents, last = path.split(".")
    for name in parents:
        if not isinstance(getattr(root, name, None), nn.Module):
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    if isinstance(value, nn.Module):
        root.add_module(last, value)
    elif isinstance(value, nn.Parameter):
        root.register_parameter(last, value)
    else:
        root.register_buffer(last, value)
