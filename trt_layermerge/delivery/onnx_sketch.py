"""Can the operators of a network be written as ONNX? Asked in a second or two, before anything long begins.

What is exported is a sketch: the first call of each operator, and of each type of module, on tensors of the shapes that
it has in the network, all beside each other. What only the whole shows, such as a size that the batch decides, is not
seen; nor are complex numbers, which torch's exporter has inside of a network alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from trt_layermerge.delivery.export import quiet, why_not
from trt_layermerge.network.inputs import examples
from trt_layermerge.network.network import Network
from trt_layermerge.onnxfile import OPSET


@dataclass(frozen=True)
class Unwritable:
    """An operator that torch's exporter has no form in ONNX for.

    Attributes:
        name: Of its first call in the network.
        operator: What is called.
        reason: What the exporter says.
    """

    name: str
    operator: str
    reason: str


@dataclass(frozen=True)
class _Call:
    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def unwritable(network: Network) -> tuple[Unwritable, ...]:
    """The operators of a network that cannot be written as ONNX, in their order."""
    calls = _FirstCalls(network.module)
    with torch.no_grad():
        calls.run(*examples(network.inputs, batch=2))
    if _refusal(network.module, calls.found) is None:
        return ()
    asked = ((call, _refusal(network.module, [call])) for call in calls.found)
    return tuple(
        Unwritable(call.node.name, _called(network.module, call.node), why) for call, why in asked if why is not None
    )


class _FirstCalls(fx.Interpreter):
    """Runs a network, and keeps what each operator is first called with."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: list[_Call] = []
        self._known = set[object]()

    def run_node(self, n: fx.Node) -> Any:
        kind = self._kind(n)
        if kind is None or kind in self._known:
            return super().run_node(n)
        asked = self.fetch_args_kwargs_from_env(n)
        kept: Any = fx.node.map_aggregate(asked, _of_its_own)
        result = super().run_node(n)
        given, made = _tensors(kept), _tensors(result)
        if given and made and not any(value.is_complex() for value in (*given, *made)):
            self._known.add(kind)
            self.found.append(_Call(n, *kept))
        return result

    def _kind(self, node: fx.Node) -> object:
        if node.op == "call_module":
            return type(self.module.get_submodule(str(node.target)))
        return node.target if node.op == "call_function" and isinstance(node.target, OpOverload) else None


def _refusal(module: fx.GraphModule, calls: Sequence[_Call]) -> str | None:
    """Why torch's exporter does not write calls that read nothing of each other; ``None`` where it does."""
    graph, values = fx.Graph(), _tensors([(call.args, call.kwargs) for call in calls])
    inputs = iter([graph.placeholder(f"input_{number}") for number in range(len(values))])

    def read(value: Any) -> Any:
        return next(inputs) if isinstance(value, Tensor) else value

    made = []
    for call in calls:
        given: Any = fx.node.map_aggregate((call.args, call.kwargs), read)
        made.append(graph.create_node(call.node.op, call.node.target, *given))
    graph.output(tuple(made))
    try:
        with quiet():
            torch.onnx.export(
                fx.GraphModule(module, graph).eval(),
                tuple(values),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
                optimize=False,
            )
    except Exception as error:  # whatever it is that torch raises: it would raise it for the network, too
        return why_not(error)
    return None


def _of_its_own(value: Any) -> Any:
    """A tensor that nobody writes into."""
    return value.clone() if isinstance(value, Tensor) else value


def _tensors(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    fx.node.map_aggregate(values, lambda value: found.append(value) if isinstance(value, Tensor) else None)
    return found


def _called(module: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))).__name__
    return str(node.target)
