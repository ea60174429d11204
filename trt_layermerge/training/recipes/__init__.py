"""Recipes by name: the TOML files beside this one, and any of a user's own.

Each file holds fields of ``Recipe`` and says in its comments where every number is from.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from trt_layermerge.errors import UsageError, did_you_mean
from trt_layermerge.files import parse_toml, read_bytes
from trt_layermerge.training.recipe import Recipe

FOLDER = Path(__file__).parent

_document = TypeAdapter(with_config(ConfigDict(strict=True, extra="forbid"))(Recipe))


def recipe_names() -> tuple[str, ...]:
    """The recipes that come with the package."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.toml")))


def read_recipe(name: str) -> Recipe:
    """The recipe of a name, or of a file whose name ends in ``.toml``.

    Raises:
        UsageError: There is none, or a field of it is unknown, of another type or out of range.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not name.endswith(".toml") and name not in recipe_names():
        hint = did_you_mean(name, recipe_names(), f"there are {', '.join(recipe_names())}; or name a FILE.toml")
        raise UsageError(f"there is no recipe {name!r}", hint=hint)
    try:
        values = parse_toml(read_bytes(path))
        # As JSON, in which a list may be a tuple while numbers and words must be what they are.
        return _document.validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(map(str, fault["loc"])) or "the file"
        raise UsageError(f"recipe {path}: {field}: {fault['msg']}") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"cannot read the recipe {path}: it {error}") from error
