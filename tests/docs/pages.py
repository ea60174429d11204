"""The pages of the documentation, and what of them can be checked: links, commands, code."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^([ \t]*)```([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)\s]*)?\)")


def pages() -> list[Path]:
    """All Markdown of the checkout that people read."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    found += [*ROOT.glob("examples/**/README.md"), ROOT / "profiles" / "README.md", ROOT / "engines" / "README.md"]
    return sorted(page for page in found if not page.is_relative_to(ROOT / "docs" / "reference"))


def links(page: Path) -> list[str]:
    """Targets of links that stay in the checkout."""
    prose = _FENCE.sub("", page.read_text())
    return [target for target in _LINK.findall(prose) if "://" not in target and not target.startswith("mailto:")]


@dataclass(frozen=True)
class Snippet:
    """A fenced part of a page."""

    language: str
    text: str


def snippets(page: Path) -> list[Snippet]:
    """Of a page, in order."""
    return [Snippet(match[2].strip(), match[3]) for match in _FENCE.finditer(page.read_text())]


def commands(page: Path) -> list[list[str]]:
    """Every shell command of a page that starts this program or make, split into words."""
    found = []
    for snippet in snippets(page):
        if snippet.language in ("python", "toml", "json", "diff", "text"):
            continue
        for line in snippet.text.replace("\\\n", " ").splitlines():
            line = re.sub(r"^\s*(- )?(run: )?(\$ )?", "", line)
            if line.startswith(("trt-layermerge ", ".venv/bin/trt-layermerge ", "make ")):
                found.append(shlex.split(line, comments=True))
    return found
