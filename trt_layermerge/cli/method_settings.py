"""Options that set up a planning method, each made from a setting of the methods that have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from trt_layermerge.planning.methods.registry import registered_methods


def setting_names() -> tuple[str, ...]:
    """Names of the settings of all methods, each once."""
    return tuple(dict.fromkeys(one.name for method in registered_methods() for one in method.settings))


def setting_options() -> list[Callable[[Any], Any]]:
    """An option for each name; one that is not given is None, and the method takes its own default."""
    return [_option(name) for name in setting_names()]


def given_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the options of a command give, of whatever method they are."""
    return {name: given[name] for name in setting_names() if given.get(name) is not None}


def _option(name: str) -> Callable[[Any], Any]:
    of = [(method.name, one) for method in registered_methods() for one in method.settings if one.name == name]
    methods, settings = zip(*of, strict=True)
    default = settings[0].default
    return click.option(
        f"--{name.replace('_', '-')}",
        type=type(default),
        help=f"{', '.join(methods)}: {settings[0].help}  [default: {default}]",
    )
