"""Text that may be shown to anyone: without paths, and without the names of users and hosts. Standard library only."""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PATH = re.compile(r"(?<![\w/.:])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\:'\",;()<>|]+){2,}[/\\]?")
"""An absolute path of two parts or more; one part alone is as likely a fraction, or an option."""

_PACKAGES = ("site-packages", "dist-packages")
_SHORTEST = 3
"""Names of users and hosts that are shorter than this are words, too."""


def anonymous(text: str) -> str:
    """A text without what tells of the machine's owner.

    Of a path what lies in our package, or in an installed one, is kept, for it tells where an error came from; else the
    last part alone. Names become ``USER`` and ``HOST``.
    """
    text = _PATH.sub(lambda match: _shortened(match[0]), text)
    for word, names in (("USER", _users()), ("HOST", _hosts())):
        for name in names:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", word, text)
    return text


def anonymous_value(value: Any) -> Any:
    """A value of JSON in which every text is ``anonymous``; keys are ours, and stay."""
    if isinstance(value, str):
        return anonymous(value)
    if isinstance(value, Mapping):
        return {key: anonymous_value(item) for key, item in value.items()}
    return [anonymous_value(item) for item in value] if isinstance(value, (list, tuple)) else value


def _shortened(path: str) -> str:
    parts = [part for part in re.split(r"[/\\]", path) if part]
    for index in reversed(range(len(parts) - 1)):
        if parts[index] in _PACKAGES:
            return "/".join(["...", *parts[index + 1 :]])
        if parts[index] == "trt_layermerge" and parts[-1].endswith(".py"):
            return "/".join(["...", *parts[index:]])
    return f".../{parts[-1]}"


def _users() -> list[str]:
    try:
        found = {getpass.getuser(), Path.home().name}
    except (OSError, KeyError, ImportError, RuntimeError):  # no user of this number has a name
        return []
    return _worth_hiding(found - {"root"})


def _hosts() -> list[str]:
    host = platform.node()
    return _worth_hiding({host, host.partition(".")[0]})


def _worth_hiding(names: set[str]) -> list[str]:
    return sorted((name for name in names if len(name) >= _SHORTEST and name != "localhost"), key=len, reverse=True)
