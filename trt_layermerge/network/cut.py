"""Running a part of a graph: up to some of its values, or on from some of them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence

from torch import fx

from trt_layermerge.network.outputs import output_node


def up_to(module: fx.GraphModule, names: Sequence[str]) -> fx.GraphModule:
    """The part of a graph that computes the named values; it returns them as a tuple and shares all weights."""
    graph = copy.deepcopy(module.graph)
    nodes = {node.name: node for node in graph.nodes}
    _set_output(graph, tuple(nodes[name] for name in names))
    return _part(module, graph)


def onward(module: fx.GraphModule, known: Collection[str]) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The part of a graph that is left to compute once the named values are known.

    Returns:
        The part, and the names of those known values that it needs, in the order in which it takes them; those of the
        network's own inputs follow them that something else needs and that are not known.
    """
    graph = copy.deepcopy(module.graph)
    needed: list[str] = []
    for node in _frontier(graph, known):
        with graph.inserting_before(next(iter(graph.nodes))):
            value = graph.placeholder(f"known_{node.name}")
        node.replace_all_uses_with(value)
        needed.insert(0, node.name)
    _drop_unread(graph)
    for node in list(graph.nodes):
        if node.op == "placeholder" and not node.users:
            graph.erase_node(node)  # an input of the network, when all that is needed from it is known
    return _part(module, graph), tuple(needed)


def between(module: fx.GraphModule, start: str, end: str) -> fx.GraphModule:
    """The part of a graph that makes one value from another; it shares all weights.

    Requires: every path to ``end`` leads through ``start``.
    """
    part, _ = onward(up_to(module, [end]), {start})
    output = output_node(part.graph)
    output.args = tuple(output.all_input_nodes)
    part.recompile()
    return part


def _frontier(graph: fx.Graph, known: Collection[str]) -> list[fx.Node]:
    """The known values from which the output can be computed, in order of execution."""
    seen: set[fx.Node] = set()
    frontier: set[fx.Node] = set()
    todo = [output_node(graph)]
    while todo:
        for node in todo.pop().all_input_nodes:
            if node.name in known and node.op != "get_attr":
                frontier.add(node)
            elif node not in seen:
                seen.add(node)
                todo.append(node)
    return [node for node in graph.nodes if node in frontier]


def _set_output(graph: fx.Graph, results: tuple[fx.Node, ...]) -> None:
    graph.erase_node(output_node(graph))
    graph.output(results)


def _part(module: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    """What a graph computes with a module's weights, without what its output does not depend on."""
    _drop_unread(graph)
    graph.lint()
    part = fx.GraphModule(module, graph)
    part.training = module.training
    return part


def _drop_unread(graph: fx.Graph) -> None:
    """Remove what nothing reads; attention too, which torch takes for random, and keeps for the sake of its seed."""
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
