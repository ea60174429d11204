"""Options made from the fields of an estimator, and the estimator made from what they were given. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from trt_layermerge.importance.estimators.base import Estimator

_F = TypeVar("_F", bound=Callable[..., Any])
K = TypeVar("K", bound=Estimator)


def options_of(kind: type[Estimator]) -> Iterator[Callable[[_F], _F]]:
    """One option for each field, described as its ``setting`` says."""
    types = get_type_hints(kind)
    for field in fields(kind):
        name, unset = kind.option(field.name), field.metadata["unset"]
        yield click.option(
            f"{name}/--no-{name.removeprefix('--')}" if types[field.name] is bool else name,
            type=_parsed_as(types[field.name]),
            default=field.default,
            show_default=unset if field.default is None and unset else True,
            help=f"{kind.name}: {field.metadata['help']}.",
        )


def made_from(kind: type[K], given: Mapping[str, Any]) -> K:
    """The estimator of a command's parameters; fields that it has no option of keep their defaults.

    Raises:
        UsageError: One of them is out of range.
    """
    keys = {field.name: kind.option(field.name).removeprefix("--").replace("-", "_") for field in fields(kind)}
    return kind(**{name: given[key] for name, key in keys.items() if key in given})


def _parsed_as(annotation: Any) -> Any:
    """What click parses a field by: ``int | None`` as int, a ``Literal`` as one of its words."""
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    stated = [one for one in get_args(annotation) if one is not NoneType]
    return _parsed_as(stated[0]) if stated else annotation
