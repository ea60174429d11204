"""Files of a job that hold a few figures of one network on one device; those of another are passed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from trt_layermerge.errors import TableError
from trt_layermerge.files import parse_json, read_bytes, write_json

Value = TypeVar("Value")


def write_keyed(path: Path, name: str, key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Write figures with what they are of."""
    write_json(path, {"format": f"trt_layermerge.{name}", "version": 1, **key, **values})


def read_keyed(
    path: Path, name: str, key: Mapping[str, Any], read: Callable[[dict[str, Any]], Value], hint: str
) -> Value | None:
    """The figures of a file; ``None`` where there is none, or it is of something else.

    Args:
        path: The file.
        name: What it holds, in one word.
        key: What it has to be of.
        read: Makes the figures of a record, or raises ``ValueError``, which goes on from "it".
        hint: What to do where it is damaged.

    Raises:
        TableError: It is damaged.
    """
    if not path.exists():
        return None
    try:
        record = parse_json(read_bytes(path))
        if not isinstance(record, dict) or record.get("format") != f"trt_layermerge.{name}":
            raise ValueError(f"is no {name}")
        if record.get("version", 1) != 1:
            return None  # another program's, which may mean something else by its figures
        value = read(record)
    except ValueError as error:
        raise TableError(f"{path} is damaged: it {error}", hint=hint) from error
    return value if all(record.get(field) == one for field, one in key.items()) else None
