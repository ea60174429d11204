"""The pages of the documentation, and what of them can be checked: links, commands, code."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from trt_layermerge.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^([ \t]*)```([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(rf"`((?:trt-layermerge|make|{'|'.join(COMMANDS)})\s[^`]+)`")
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


PROGRAMS = ("trt-layermerge", ".venv/bin/trt-layermerge", ".venv/bin/python", "python", "make", "pip", "ray", "openssl")
"""That the pages start."""


@dataclass(frozen=True)
class Snippet:
    """A fenced part of a page."""

    language: str
    text: str


def snippets(page: Path) -> list[Snippet]:
    """Of a page, in order."""
    return [Snippet(match[2].strip(), match[3]) for match in _FENCE.finditer(page.read_text())]


def commands(page: Path) -> list[list[str]]:
    """Every shell command of a page that starts this program or make, split into words; those amid prose, too."""
    inline = [shlex.split(command) for command in _INLINE.findall(_FENCE.sub("", page.read_text()))]
    found = [["trt-layermerge", *words] if words[0] in COMMANDS else words for words in inline]
    for snippet in snippets(page):
        if snippet.language in ("python", "toml", "json", "diff", "text"):
            continue
        for line in _lines(snippet):
            line = re.sub(r"^(- )?(run: )?(\$ )?", "", line)
            if line.startswith(("trt-layermerge ", ".venv/bin/trt-layermerge ", "make ")):
                found.append(shlex.split(line, comments=True))
    return found


def typed(page: Path) -> list[str]:
    """What a page says to type, in order: each line, without its prompt, of fences that hold commands.

    Those of CI services, which are YAML, are typed by nobody.
    """
    found = []
    for snippet in snippets(page):
        lines = _lines(snippet) if snippet.language in ("", "console") else []
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        found += prompted or [line for line in lines if line.partition(" ")[0] in PROGRAMS]
    return found


def _lines(snippet: Snippet) -> list[str]:
    return [line.strip() for line in snippet.text.replace("\\\n", " ").splitlines()]
