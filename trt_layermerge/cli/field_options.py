"""Options made from fields: settings of estimators, of planning methods, of builders. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click

from trt_layermerge.cli.sections import Decorator, OneOf, option
from trt_layermerge.importance.estimators.base import Estimator
from trt_layermerge.pipeline.settings import builder_options, method_setting_names
from trt_layermerge.planning.methods.registry import registered_methods


def estimator_options(kind: type[Estimator]) -> Iterator[Decorator]:
    """An option for each setting of an estimator."""
    types = get_type_hints(kind)
    for field in fields(kind):
        usual = field.metadata["unset"] if field.default is None else field.default
        help = f"Of --estimator {kind.name}: {field.metadata['help']}."
        yield _option(kind.option(field.name), types[field.name], field.default, help, usual=usual)


def method_options() -> Iterator[Decorator]:
    """An option for each name that settings of methods have."""
    for name in method_setting_names():
        of = [(method.name, one) for method in registered_methods() for one in method.settings if one.name == name]
        methods, settings = zip(*of, strict=True)
        first, help = settings[0], f"Of --method {', '.join(methods)}: {settings[0].help}"
        usual = first.default if first.usual is None else first.usual
        yield _option(f"--{name.replace('_', '-')}", type(first.default), first.default, help, usual=usual)


def builder_setting_options() -> Iterator[Decorator]:
    """An option for each setting of a runtime's builder."""
    for field, owner, about, users in builder_options():
        default = getattr(owner(), field)
        yield _option(
            about.name,
            get_type_hints(owner)[field],
            default,
            f"Of {', '.join(users)}: {about.help}",
            usual=about.usual or (None if default is None else f"{default:g}"),
            metavar=about.metavar or None,
            least=about.least,
            most=about.most,
        )


def _option(
    name: str,
    annotation: Any,
    default: Any,
    help: str,
    *,
    usual: object = None,
    metavar: str | None = None,
    least: int | None = None,
    most: int | None = None,
) -> Decorator:
    """An option that is ``None`` where it is not given, so that its owner's default counts; of a flag, the default."""
    words = get_args(annotation) if get_origin(annotation) is Literal else ()
    value = next((one for one in get_args(annotation) if one is not NoneType), annotation)
    if value is bool:
        flags = f"{name}/--no-{name.removeprefix('--')}"
        return click.option(flags, default=default, show_default=True, help=help)
    types: dict[Any, Any] = {Path: click.Path(path_type=Path), int: click.INT, float: click.FLOAT}
    if (least, most) != (None, None):
        types |= {int: click.IntRange(least, most), float: click.FloatRange(least, most)}
    return option(
        name, type=OneOf(words) if words else types.get(value, click.STRING), help=help, usual=usual, metavar=metavar
    )
