"""One self-contained HTML page: what was gained, what it cost, and what every block became."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from trt_layermerge.delivery.manifest import Manifest
from trt_layermerge.files import write_bytes
from trt_layermerge.report.summary import summarise


def write_report(path: Path, manifest: Manifest) -> None:
    """Write the report of a delivery."""
    environment = Environment(
        loader=PackageLoader("trt_layermerge", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html").render(
        m=manifest,
        summary=summarise(manifest),
    )
    write_bytes(path, page.encode())
