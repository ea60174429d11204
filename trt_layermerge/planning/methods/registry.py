"""Methods by name: ours, and the entry points of the group ``trt_layermerge.methods`` of other packages.

A method is loaded when it is asked for. One of another package that cannot be loaded is an error to those who name it,
and to nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from trt_layermerge.errors import UsageError, did_you_mean
from trt_layermerge.planning.methods.base import Method

DEFAULT_METHOD = "joint"

METHOD_GROUP = "trt_layermerge.methods"

_OURS = {
    "joint": "joint:Joint",
    "layermerge": "layermerge:LayerMerge",
    "depth": "depth:Depth",
    "layer-only": "layer_only:LayerOnly",
    "width": "width_only:WidthOnly",
}
"""Name -> file and class, a line each."""


def method_names() -> tuple[str, ...]:
    """All names, ours first."""
    return tuple(_registered())


def registered_methods() -> tuple[Method, ...]:
    """All methods that can be loaded, with the settings that they have by default."""
    return tuple(found for name in method_names() if isinstance(found := _found(name), Method))


def method_named(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The method of a name.

    Args:
        name: Its name.
        settings: Settings that are not to be the default ones, by name.

    Raises:
        UsageError: There is none, it cannot be loaded, it has no such setting, or a setting is out of range.
    """
    found = _found(name)
    if isinstance(found, UsageError):
        raise found
    settings = settings or {}
    for unknown in settings.keys() - {one.name for one in found.settings}:
        owners = [other.name for other in registered_methods() if unknown in {one.name for one in other.settings}]
        raise UsageError(
            f"method {name} has no setting {unknown}" + (f": that is of {', '.join(owners)}" if owners else ""),
            hint=f"add --method {owners[0]}" if owners else None,
        )
    return replace(found, **settings)


@cache
def _registered() -> dict[str, list[EntryPoint]]:
    ours = [EntryPoint(name, f"{__package__}.{where}", METHOD_GROUP) for name, where in _OURS.items()]
    found: dict[str, list[EntryPoint]] = {}
    for one in (*ours, *entry_points(group=METHOD_GROUP)):
        found.setdefault(one.name, []).append(one)
    return found


@cache
def _found(name: str) -> Method | UsageError:
    """The method of a name, or why there is none."""
    names = method_names()
    if name not in names:
        hint = did_you_mean(name, names, f"there are {', '.join(names)}")
        return UsageError(f"there is no method {name!r}", hint=hint)
    where = _registered()[name]
    if len(where) > 1:
        return UsageError(
            f"several packages register a method {name!r}: {', '.join(one.value for one in where)}",
            hint="uninstall all but one of them",
        )
    try:
        method = where[0].load()()
    except Exception as error:  # it is anyone's code that runs here
        return UsageError(f"method {name!r} cannot be loaded from {where[0].value}: {error}", hint="mend that package")
    if not isinstance(method, Method) or method.name != name:
        return UsageError(
            f"{where[0].value} is registered as method {name!r}, and is none of that name",
            hint="derive it from trt_layermerge.planning.methods.base.Method, and name it as it is registered",
        )
    return method
