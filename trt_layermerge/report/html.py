"""Pages that hold all they need: templates, style and script of one file; whatever comes from outside is text.

A page fetches nothing and runs one script, its own, which the page's Content-Security-Policy names by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trt_layermerge.delivery.manifest import Manifest
from trt_layermerge.files import write_bytes
from trt_layermerge.report.evidence import NO_EVIDENCE, Evidence
from trt_layermerge.report.strips import strips
from trt_layermerge.report.summary import FATES, Summary, summarise


def write_report(
    path: Path, manifest: Manifest, evidence: Evidence = NO_EVIDENCE, cautions: tuple[str, ...] = ()
) -> None:
    """Write the report of a delivery: what was gained, what it cost, and what every block became.

    Args:
        path: Where to.
        manifest: Of the delivery.
        evidence: The tables behind it; without them the report leaves out what they would show.
        cautions: What is to be known before it is trusted.
    """
    from trt_layermerge.report.pictures import pictures_of  # matplotlib takes half a second, whatever is run

    summary = summarise(manifest, evidence)
    plan = manifest.plan
    write_page(
        path,
        "delivery.html",
        m=manifest,
        summary=summary,
        evidence=evidence,
        cautions=cautions,
        drawn=strips(summary.blocks, plan["original_ns"], plan["latency_ns"]),
        fates=fates_in(summary),
        pictures=pictures_of(summary, evidence),
        manifest_json=json.dumps(manifest.model_dump(mode="json", exclude={"checksum"}), indent=2),
    )


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a page from one of our templates.

    Args:
        path: Where to.
        template: Name of the template.
        values: What it shows; all that is not ``Markup`` is escaped.
    """
    script = _read("tips.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = _templates().get_template(template)
    text = page.render(style=Markup(_read("page.css")), script=Markup(script), script_hash=f"sha256-{digest}", **values)
    write_bytes(path, text.encode(errors="backslashreplace"))  # names may hold halves of surrogate pairs


def fates_in(summary: Summary) -> dict[str, str]:
    """What becomes of the blocks of a plan, by class of the page's style, for a legend."""
    found = {name: said for name, said in FATES.items() if any(one.fate == name for one in summary.blocks)}
    found |= {"warn": "narrowed"} if any(one.narrowed for one in summary.blocks) else {}
    return found | {"outside": "outside of all blocks"}


@cache
def _templates() -> Environment:
    loader = PackageLoader("trt_layermerge.report", "page")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _read(name: str) -> str:
    return resources.files("trt_layermerge.report").joinpath("page", name).read_text()
