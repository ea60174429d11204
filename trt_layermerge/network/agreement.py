"""Whether a normal form computes what its source computes, and each sample of a batch by itself."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from trt_layermerge.errors import ModelError
from trt_layermerge.network.inputs import Values, as_tuple
from trt_layermerge.network.outputs import output_node
from trt_layermerge.network.placing import operator_name

SOURCE_TOLERANCE = 1e-4
"""Largest difference between the source and its normal form as a share of the largest output, float32."""


def difference(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value; NaN where one is."""
    scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float((actual - expected).abs().max() / scale)


def require_agreement(name: str, module: fx.GraphModule, example: tuple[Tensor, ...], expected: Values) -> None:
    """See that a normal form is right.

    Args:
        name: What to call the source.
        module: The normal form.
        example: Inputs, two samples of each.
        expected: What the source makes of them.

    Raises:
        ModelError: It does not run, differs from the source, makes whole numbers, or mixes samples.
    """
    try:
        with torch.no_grad():
            actual, alone = (as_tuple(module(*inputs)) for inputs in (example, [value[:1] for value in example]))
    except (RuntimeError, ValueError) as failure:
        raise ModelError(f"the normal form of {name} does not run: {failure}") from failure
    for one, other in zip(actual, as_tuple(expected), strict=True):
        if not other.is_floating_point():
            raise ModelError(
                f"{name} returns {other.dtype}, which cannot be trained",
                hint="return the scores themselves, before argmax or the like",
            )
        if not other.numel():
            raise ModelError(f"{name} returns a tensor without elements, {list(other.shape)}", hint=_EMPTY)
        if not bool(other.isfinite().all()):
            raise ModelError(f"{name} returns what is not finite for random inputs{_infinite(module)}", hint=_INFINITE)
        error = difference(one, other)
        if not error <= SOURCE_TOLERANCE:  # also true for NaN
            raise ModelError(
                f"the normal form of {name} differs from it by {error:.1e} of its largest output",
                hint="random operations in evaluation mode cannot be worked with",
            )
    if not all(map(_first_agrees, alone, actual)) and not _apart_in_double(module, example):
        raise _mixed(name, module, example)


_EMPTY = "give an input that is large enough (--input CxHxW)"
_INFINITE = (
    "give weights of a training that did not diverge; logarithms, roots and quotients must be finite for any input, as "
    "with .clamp(min=1e-6)"
)


def _infinite(module: nn.Module) -> str:
    """The first weight that is not finite, in words; empty where all are."""
    for name, value in module.state_dict().items():
        if not bool(value.isfinite().all()):
            return f": its {name} is not"
    return ""


def _apart_in_double(module: fx.GraphModule, example: tuple[Tensor, ...]) -> bool:
    """Whether samples are computed each by itself in float64: a deep network makes much of float32's rounding.

    Kernels for one sample and for two round differently.
    """
    try:
        double = copy.deepcopy(module).double()
        both = [value.double() if value.is_floating_point() else value for value in example]
        with torch.no_grad():
            alone, together = (as_tuple(double(*inputs)) for inputs in ([value[:1] for value in both], both))
    except RuntimeError:  # the graph has widths of its own
        return False
    return all(map(_first_agrees, alone, together))


class _NodeByNode(fx.Interpreter):
    """Runs a graph and keeps the value of every node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)

    def values(self, *inputs: Tensor) -> dict[fx.Node, Any]:
        """Every node's value."""
        with torch.no_grad():
            self.run(*inputs)
        return self.env


def _mixed(name: str, module: fx.GraphModule, example: tuple[Tensor, ...]) -> ModelError:
    """What to say where a sample's outputs depend on the others of its batch, with the first node that makes them.

    Blocks of such a network cannot be measured, for what they compute depends on what else is in the batch.
    """
    alone, both = (_NodeByNode(module).values(*x) for x in ([value[:1] for value in example], example))
    batched = [node for node in module.graph.nodes if node.meta.get("multiple")]
    returned = output_node(module.graph).all_input_nodes
    for node in returned:
        one, two = alone[node].shape, both[node].shape
        if one[:1] == two[:1] and one != two:
            sizes = ", ".join("batch" if size != other else str(size) for size, other in zip(one, two, strict=True))
            return ModelError(
                f"{name} returns [{sizes}] ({operator_name(node)}); the batch must be the first dimension",
                hint="transpose what is returned: in a module around it, or by a last node of an ONNX file",
            )
    guilty = next(node for node in (*batched, *returned) if not _first_agrees(alone[node], both[node]))
    return ModelError(
        f"{name} does not compute each sample of a batch by itself: from {operator_name(guilty)} in "
        f"{guilty.meta.get('source') or 'its forward()'} on, a sample's values depend on the others of its batch",
        hint="a batch norm needs running statistics in evaluation (track_running_stats=True, training=False); frames "
        "of a clip belong into one sample, (frames * channels) x height x width; an ONNX file needs a dynamic batch",
    )


def _first_agrees(alone: Any, both: Any) -> bool:
    """Whether a value for one sample is that of the first of two; numbers that are no floats count as alike.

    Frames of a sample lie one after the other in the batch, or one for each sample in turn.
    """
    if not isinstance(alone, Tensor) or not alone.is_floating_point():
        return True
    if not alone.dim() or both.shape != (2 * alone.shape[0], *alone.shape[1:]):
        return False
    parts = (both[: alone.shape[0]], both[::2])
    return alone.numel() == 0 or any(difference(part, alone) <= SOURCE_TOLERANCE for part in parts)
