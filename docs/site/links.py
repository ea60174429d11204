"""A hook of MkDocs: what pages link to outside of ``docs/`` is named by its path, for the site does not have it."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links that leave the folder of pages into words; MkDocs warns of all others that lead nowhere."""

    def inside(link: re.Match[str]) -> str:
        words, target = link[1], link[2]
        if "://" in target:
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), target))
        if not path.startswith(".."):
            return link[0]
        found = path.removeprefix("../")
        return f"`{found}`" if words.strip("`") in found else f"{words} (`{found}`)"

    return _LINK.sub(inside, markdown)
