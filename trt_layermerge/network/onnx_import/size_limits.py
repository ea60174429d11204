"""What sizes an ONNX model has, before anything is made of it: functions that call functions grow by powers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from trt_layermerge.errors import ModelError
from trt_layermerge.probe import DAMAGED

MOST_NODES = 100_000
"""Of a graph with its functions written out; networks have thousands."""

_Key = tuple[str, str]


def require_bounded(proto: onnx.ModelProto, where: str) -> None:
    """See that weights have sizes, and that there are not too many nodes once functions are written out.

    Raises:
        ModelError: One has none, or there are; or a function calls itself.
    """
    for tensor in proto.graph.initializer:
        if any(size < 0 for size in tensor.dims):
            raise ModelError(f"{where} is malformed: {tensor.name!r} has the shape {list(tensor.dims)}", hint=DAMAGED)
    bodies = {(one.domain, one.name): list(one.node) for one in proto.functions}
    counts: dict[_Key, int] = {}
    for key in bodies:
        _count(key, bodies, counts, where)
    if (nodes := _nodes(proto.graph.node, counts)) > MOST_NODES:
        raise ModelError(f"{where} has {min(nodes, 10**18)} nodes or more; {MOST_NODES} can be read", hint=DAMAGED)


def _count(start: _Key, bodies: Mapping[_Key, list[onnx.NodeProto]], counts: dict[_Key, int], where: str) -> None:
    """Count the nodes of a function and of those that it calls, the innermost ones first."""
    stack = [start]
    while stack:
        key = stack[-1]
        called = [(node.domain, node.op_type) for node in bodies[key]]
        open_ones = [one for one in called if one in bodies and one not in counts]
        if any(one in stack for one in open_ones):
            raise ModelError(f"{where} has a function that calls itself: {key[1]!r}", hint=DAMAGED)
        if open_ones and key not in counts:
            stack.append(open_ones[0])
            continue
        counts[key] = _nodes(bodies[key], counts)
        stack.pop()


def _nodes(nodes: Iterable[onnx.NodeProto], counts: Mapping[_Key, int]) -> int:
    return sum(counts.get((node.domain, node.op_type), 1) for node in nodes)
