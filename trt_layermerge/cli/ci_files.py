"""The files that CI reads, of the commands that write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from trt_layermerge import files
from trt_layermerge.ci.benchmark_action import benchmark_json
from trt_layermerge.ci.case import CiReport
from trt_layermerge.ci.junit import junit
from trt_layermerge.ci.markdown import markdown
from trt_layermerge.cli.options import PATH
from trt_layermerge.cli.sections import section

ci_options = section(
    "For CI",
    click.option(
        "--summary", type=PATH, metavar="FILE.md", help="Append a Markdown summary, as to $GITHUB_STEP_SUMMARY."
    ),
    click.option("--junit", type=PATH, metavar="FILE.xml", help="Write JUnit XML: a case for each row."),
    click.option(
        "--benchmark-json", type=PATH, metavar="FILE.json", help="Write the JSON of custom benchmark actions."
    ),
)


@dataclass(frozen=True)
class CiFiles:
    """Where what CI reads is to be written; ``None`` for nowhere.

    Attributes:
        summary: Markdown, which is appended, for the commands of one step share the file.
        junit: JUnit XML.
        benchmark_json: JSON of custom benchmark actions.
    """

    summary: Path | None
    junit: Path | None
    benchmark_json: Path | None

    def require_writable(self) -> None:
        """See that they can be written, before anything long begins.

        Raises:
            InputError: They cannot.
        """
        for path in (self.summary, self.junit, self.benchmark_json):
            if path is not None:
                files.require_writable(path.parent)
        for path in filter(None, (self.junit, self.benchmark_json)):  # the summary is appended to
            files.require_replaceable(path)

    def write(self, make: Callable[[], CiReport]) -> None:
        """Write those that are wanted."""
        if not any((self.summary, self.junit, self.benchmark_json)):
            return
        report = make()
        if self.summary is not None:
            files.append_text(self.summary, markdown(report))
        if self.junit is not None:
            files.write_bytes(self.junit, junit(report))
        if self.benchmark_json is not None:
            files.write_bytes(self.benchmark_json, benchmark_json(report))
