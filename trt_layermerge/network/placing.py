"""Where modules lie in a graph's module, and how many of its nodes read them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable
from keyword import iskeyword

from torch import Tensor, fx, nn

RESERVED = frozenset({*dir(fx.GraphModule(nn.Module(), fx.Graph())), "self"})
"""What modules and traced ones have already; these have more than the modules of a source."""


def writable(path: str, taken: Container[str]) -> str:
    """A path that the code can be written with that torch.fx makes of a graph, as near to the given one as can be.

    Args:
        path: Dotted; words of Python, quotes and, in front, names of what a graph's module has itself are changed.
        taken: Paths that it must not become.
    """
    first, *others = path.split(".")
    parts = [f"{first}_" if first in RESERVED else first, *others]
    parts = [f"{part}_" if iskeyword(part) else re.sub(r'["\\\n\r]', "_", part) for part in parts]
    result = ".".join(parts)
    while result != path and result in taken:
        result += "_"
    return result


def found(root: nn.Module, path: str) -> nn.Module | None:
    """The module at a dotted path, if there is one."""
    try:
        return root.get_submodule(path)
    except AttributeError:
        return None


def attach(root: nn.Module, path: str, module: nn.Module) -> None:
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


def attribute(root: nn.Module, path: str) -> Tensor:
    """The parameter or buffer at a dotted path."""
    owner, _, name = path.rpartition(".")
    value = getattr(root.get_submodule(owner), name)
    assert isinstance(value, Tensor)
    return value


def common_owner(names: Iterable[str]) -> str:
    """The module that holds all these parameters, but for what ``torch.nn.utils.parametrize`` keeps below it."""
    marker = ".parametrizations."
    owners = [name.partition(marker)[0] if marker in name else name.rpartition(".")[0] for name in names]
    if not owners:
        return ""
    first, *others = (owner.split(".") for owner in owners)
    length = next((i for i in range(len(first)) if any(other[i : i + 1] != first[i : i + 1] for other in others)), None)
    return ".".join(first[:length])


def free_path(root: nn.Module, wanted: str) -> str:
    """A place for a layer: the wanted one, where nothing but lone parameters lies, else one with a number."""
    path, count = wanted, 0
    while (present := found(root, path)) is not None and (type(present) is not nn.Module or any(present.children())):
        count += 1
        path = f"{wanted}_{count}"
    return path


def operator_name(node: fx.Node) -> str:
    """The name of what a node calls, as people say it: ``conv2d``, or the path of a module."""
    return str(getattr(node.target, "__name__", node.target)).partition(".")[0]


def called_module(root: nn.Module, node: fx.Node) -> nn.Module | None:
    """The module that a node calls, if it calls one."""
    return root.get_submodule(str(node.target)) if node.op == "call_module" else None


def consumer(root: nn.Module, node: fx.Node) -> nn.Conv2d | nn.Linear:
    """The layer that a node calls, of one that reads all channels of a group."""
    part = called_module(root, node)
    assert isinstance(part, nn.Conv2d | nn.Linear)
    return part


def shaken(module: fx.GraphModule) -> fx.GraphModule:
    """Without nodes, modules and parameters that the output does not depend on."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    return fx.GraphModule(module, module.graph)


def reader_counts(module: fx.GraphModule) -> Counter[str]:
    """How many nodes read what each called module holds, by the module's path.

    Those are its calls, the calls of other modules that hold one of its parameters or buffers too, and the nodes that
    take one of them by name. More than one means that nothing may be folded into it.
    """
    readers: dict[object, set[fx.Node]] = {}
    held: dict[str, list[object]] = {}
    for node in module.graph.nodes:
        path = str(node.target)
        if node.op == "get_attr":
            readers.setdefault(id(attribute(module, path)), set()).add(node)
        elif node.op == "call_module":
            called = module.get_submodule(path)
            held[path] = [path, *map(id, called.parameters()), *map(id, called.buffers())]
            for key in held[path]:
                readers.setdefault(key, set()).add(node)
    return Counter({path: len(set().union(*(readers[key] for key in keys))) for path, keys in held.items()})
