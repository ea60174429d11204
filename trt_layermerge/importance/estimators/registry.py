"""Estimators by name: those that are here, and those that installed packages bring."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pkgutil import resolve_name
from types import MappingProxyType

from trt_layermerge.errors import UsageError
from trt_layermerge.importance.estimators.base import Estimator

DEFAULT_ESTIMATOR = "fit"

ENTRY_POINTS = "trt_layermerge.estimators"
"""The group under which a package of anyone's names its estimators."""

_BUILT_IN = (
    "trt_layermerge.importance.estimators.fit:Fit",
    "trt_layermerge.importance.estimators.product:Product",
    "trt_layermerge.importance.estimators.finetune:Finetune",
    "trt_layermerge.importance.estimators.gates:Gates",
)


@cache
def estimators() -> Mapping[str, type[Estimator]]:
    """All estimators by their names.

    Raises:
        UsageError: One that a package brings cannot be loaded, is no estimator, or takes the name of another.
    """
    found: dict[str, type[Estimator]] = {kind.name: kind for kind in map(resolve_name, _BUILT_IN)}
    for entry in entry_points(group=ENTRY_POINTS):
        whose = f"the estimator {entry.value} of the package {entry.dist.name if entry.dist else 'unknown'}"
        hint = "mend that package, or uninstall it"
        try:
            kind = entry.load()
        except Exception as error:
            raise UsageError(f"{whose} cannot be loaded: {type(error).__name__}: {error}", hint=hint) from error
        if not (isinstance(kind, type) and issubclass(kind, Estimator) and hasattr(kind, "name")):
            raise UsageError(f"{whose} is no subclass of Estimator with a name", hint=hint)
        if found.setdefault(kind.name, kind) is not kind:
            raise UsageError(f"{whose} is called {kind.name!r}, and so is {found[kind.name].__qualname__}", hint=hint)
    return MappingProxyType(found)


def default_estimator() -> Estimator:
    """The one that measures where none is asked for."""
    return estimators()[DEFAULT_ESTIMATOR]()
