"""Build routes of TensorRT's compiler, 11.1 on: which knobs are tried, in the words of trtexec's ``--tuneBuildRoutes``.

A word ``-knob=value`` is fixed, and ``-knob=[a|b]`` is to be tried. The library has some two hundred knobs, says what
they are (``trtexec --helpBuildRoute``), and refuses others itself.
"""

from __future__ import annotations

import re

from trt_layermerge.errors import UsageError

_KNOB = re.compile(r"(-[^\s=\[\]|]+)=(?:\[([^\s\[\]=]+)\]|([^\s\[\]|=]+))")


def build_routes(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The knobs that are fixed, and each that is to be tried with each of its values.

    Raises:
        UsageError: A word is neither.
    """
    fixed: list[str] = []
    tried: list[str] = []
    for word in text.split():
        match = _KNOB.fullmatch(word)
        values = [] if match is None else (match[2] or match[3]).split("|")
        if match is None or not all(values):
            raise UsageError(
                f"{word!r} is no knob of a build route",
                hint="write -knob=value, or -knob=[a|b] for what is to be tried; trtexec --helpBuildRoute lists them",
            )
        (fixed if match[2] is None else tried).extend(f"{match[1]}={value}" for value in values)
    return tuple(fixed), tuple(tried)
