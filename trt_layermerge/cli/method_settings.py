"""Options of ``solve`` that set up a planning method, each made from a setting of the methods that have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from trt_layermerge.planning.methods.base import Method
from trt_layermerge.planning.methods.registry import method_named, registered_methods


def setting_names() -> tuple[str, ...]:
    """Names of the settings of all methods, each once."""
    return tuple(dict.fromkeys(one.name for method in registered_methods() for one in method.settings))


def setting_options() -> list[Callable[[Any], Any]]:
    """An option for each name; one that is not given is None, and the method takes its own default."""
    return [_option(name) for name in setting_names()]


def method_of(given: Mapping[str, Any]) -> Method:
    """The method that the options of a command ask for.

    Raises:
        UsageError: There is none, it has no such setting, or a setting is out of range.
    """
    settings = {name: given[name] for name in setting_names() if given.get(name) is not None}
    return method_named(given["method"], settings)


def _option(name: str) -> Callable[[Any], Any]:
    of = [(method.name, one) for method in registered_methods() for one in method.settings if one.name == name]
    methods, settings = zip(*of, strict=True)
    return click.option(
        f"--{name.replace('_', '-')}",
        type=type(settings[0].default),
        show_default=str(settings[0].default),
        help=f"{settings[0].help} Of method {', '.join(methods)}.",
    )
