"""A report as a Markdown job summary, for GitHub (``$GITHUB_STEP_SUMMARY``), GitLab and people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from trt_layermerge.ci.case import CiReport, printable

SHOWN = 50
"""Most rows of the table: a step's summary may have a MiB, and nobody reads hundreds of rows that are the same."""

_STRUCTURE = re.compile(r"[&<>|`*_~\[\]\\#@$]")


def markdown(report: CiReport) -> str:
    """The summary: a heading, the notes as a list, and the first rows as a table."""
    return "\n".join(_lines(report)) + "\n\n"


def _lines(report: CiReport) -> Iterator[str]:
    yield f"### {_text(report.title)}"
    yield ""
    yield from (f"- {_text(note)}" for note in report.notes)
    if report.notes:
        yield ""
    yield _row(["", *report.columns, ""])
    yield _row(["---", *["---:"] * len(report.columns), "---"], as_is=True)
    for case in report.cases[:SHOWN]:
        reason = "" if case.reason is None else f": {case.reason}"
        yield _row([case.verdict, *case.figures, f"{case.name}{reason}"])
    if len(report.cases) > SHOWN:
        yield ""
        yield f"and {len(report.cases) - SHOWN} more rows"


def _row(cells: Iterable[str], as_is: bool = False) -> str:
    return f"| {' | '.join(cell if as_is else _text(cell) for cell in cells)} |"


def _text(text: str) -> str:
    """In one line, and no part of it anything but text: neither HTML, nor a cell's end, nor a link."""
    plain = " ".join(printable(text).split())
    return _STRUCTURE.sub(lambda found: f"&#{ord(found[0])};", plain)
