"""What the pages say exists: what they link to, the commands that they name, and the targets of make."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
import pytest

from tests.docs.pages import ROOT, commands, links, pages
from trt_layermerge.cli.main import cli
from trt_layermerge.cli.variants import CommandWithVariants

PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [target for target in links(page) if not (page.parent / target).exists()]
    assert not missing


def _unknown(words: list[str]) -> str | None:
    """What of a command this program does not know; ``...`` stands for what is left out."""
    group: click.Command = cli
    context = click.Context(cli, info_name="trt-layermerge")
    rest = [word for word in words[1:] if word != "..."]
    while isinstance(group, click.Group) and rest and not rest[0].startswith("-"):
        if (found := group.get_command(context, rest[0])) is None:
            break
        group, rest = found, rest[1:]
        context = click.Context(group, parent=context)
    if isinstance(group, CommandWithVariants) and rest and rest[0] in group.variants:
        group, rest = importlib.import_module(group.variants[rest[0]]).command, rest[1:]
        context = click.Context(group, parent=context)
    known = {name for option in group.get_params(context) for name in (*option.opts, *option.secondary_opts)}
    for word in rest:
        if re.match(r"--[a-z]|-[a-z]$", word) and word.partition("=")[0] not in known | {"--version", "-h", "--help"}:
            return f"{' '.join(words)}: {word}"
    if group is cli and rest and not rest[0].startswith("-") and rest[0] != "COMMAND":
        return f"{' '.join(words)}: {rest[0]}"
    return None


TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page.values[0])])
def test_commands_and_their_options_exist(page: Path) -> None:
    said = commands(page)
    ours = [words for words in said if words[0].endswith("trt-layermerge")]
    assert [fault for words in ours if (fault := _unknown(words))] == []
    made = {word for words in said if words[0] == "make" for word in words[1:] if re.fullmatch(r"[a-z-]+", word)}
    assert made - {"make"} <= TARGETS


def test_messages_that_questions_quote_are_those_of_the_program() -> None:
    quoted = re.findall(r'\*"([^"]+)"', (ROOT / "docs" / "faq.md").read_text())
    source = "\n".join(path.read_text() for path in (ROOT / "trt_layermerge").rglob("*.py"))
    assert len(quoted) >= 3 and [words for words in quoted if words not in source] == []


def test_it_sees_what_is_wrong() -> None:
    assert _unknown(["trt-layermerge", "compress", "m.py", "--speedup", "2"]) is None
    assert _unknown(["trt-layermerge", "compress", "m.py", "--speed-up", "2"]) is not None
    assert _unknown(["trt-layermerge", "comprise", "m.py"]) is not None
    assert _unknown(["trt-layermerge", "profile", "show", "--no-such", "x"]) is not None
    assert _unknown(["trt-layermerge", "profile", "show", "--task", "x"]) is not None, "profile alone has that"
    assert _unknown(["trt-layermerge", "profile", "estimate", "--device", "t4"]) is None
    assert len(pages()) > 100 and sum(len(commands(page)) for page in pages()) > 30
