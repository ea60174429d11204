"""What the settings of all estimators that train have in common: they are checked alike, and written down alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from trt_layermerge.errors import UsageError
from trt_layermerge.training.recipe import Recipe

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_COUNTED = {"share": "of the data", "epochs": "epochs", "steps": "steps"}
"""Fields whose number comes before the word."""


def require_in_range(group: str, share: float, recipe: Callable[[], Recipe]) -> None:
    """See that settings can be trained with.

    Args:
        group: What the settings are called, in messages.
        share: Of the training data.
        recipe: Makes the recipe, which refuses the other numbers.

    Raises:
        UsageError: One of them is out of its range.
    """
    if not 0 < share <= 1:
        raise UsageError(f"{group}: share is {share!r}; it must be above 0 and at most 1")
    try:
        recipe()
    except UsageError as error:
        raise UsageError(f"{group}: {error.message.removeprefix('recipe: ')}", hint=error.hint) from error


def in_words(settings: DataclassInstance) -> str:
    """All fields that are set, as they stand in a table's key: other numbers, however near, are other words."""
    return ", ".join(_phrases(settings))


def _phrases(settings: DataclassInstance) -> Iterator[str]:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value is not None:
            number, word = str(value).removesuffix(".0"), _COUNTED.get(field.name)
            yield f"{field.name.replace('_', ' ')} {number}" if word is None else f"{number} {word}"
