"""Cards as TOML files: those beside this one by name, and any that a user's recalibration wrote.

A file without ``[constants]`` is a data sheet alone: it takes the constants, and the errors that they showed on yet
another card, from the one that ``constants_of`` names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from trt_layermerge import files
from trt_layermerge.errors import UsageError
from trt_layermerge.estimation.card import Card, DeviceSheet

DEVICE_FOLDER = Path(__file__).parent / "devices"
SUFFIX = ".toml"

_strict = with_config(ConfigDict(strict=True, extra="forbid"))
_card = TypeAdapter(_strict(Card))
_sheet = TypeAdapter(_strict(DeviceSheet))


def device_names() -> tuple[str, ...]:
    """The cards that come with the package, the measured one first."""
    return tuple(
        sorted((file.stem for file in DEVICE_FOLDER.glob(f"*{SUFFIX}")), key=lambda name: (name != MEASURED, name))
    )


MEASURED = "rtx-2080-ti"
"""The card whose rows the constants were fitted on."""


def read_card(device: str) -> Card:
    """The card of a name, or of a file whose name ends in ``.toml``.

    Raises:
        UsageError: There is none, or a field of it is unknown, of another type or out of range.
    """
    path = Path(device) if device.endswith(SUFFIX) else DEVICE_FOLDER / f"{device}{SUFFIX}"
    if not device.endswith(SUFFIX) and device not in device_names():
        raise UsageError(
            f"there is no device {device!r} to estimate for",
            hint=f"there are {', '.join(device_names())}; or name a FILE.toml that --save wrote",
        )
    try:
        values = files.parse_toml(files.read_bytes(path))
        if "constants" in values:
            return _card.validate_json(json.dumps(values, default=str))
        base = read_card(Path(str(values.get("constants_of"))).stem)  # one of ours: files could name each other
        sheet = _sheet.validate_json(json.dumps(values.get("sheet"), default=str))
        return replace(base, sheet=sheet, provenance=str(values.get("provenance")), own={})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(map(str, fault["loc"])) or "the file"
        raise UsageError(f"device {path}: {field}: {fault['msg']}") from error
    except OSError as error:
        raise UsageError(f"cannot read the device {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"cannot read the device {path}: it {error}") from error


def write_card(path: Path, card: Card) -> None:
    """Write a card, so that ``read_card`` reads it back."""
    files.write_bytes(path, ("\n".join(_lines("", asdict(card))).strip() + "\n").encode())


def _lines(table: str, values: Mapping[str, Any]) -> Iterator[str]:
    """TOML of nested tables: plain values first, as the language demands."""
    if table:
        yield f"\n[{table}]"
    for name, value in values.items():
        if not isinstance(value, dict):
            text = round(value, 5) if isinstance(value, float) else value
            yield f"{name} = {json.dumps(text, ensure_ascii=False)}"
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _lines(f"{table}.{name}" if table else name, value)
