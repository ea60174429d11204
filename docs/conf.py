"""The documentation as a site, built by Sphinx: `make docs` writes it to build/site; warnings are errors.

Pages are Markdown, read as they are on the way through the checkout as well; the reference is generated, from
docstrings, from the commands themselves, and from the types that write files.
"""

from __future__ import annotations

import inspect
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from trt_layermerge.delivery.engine_manifest import EngineManifest
from trt_layermerge.delivery.manifest import Manifest
from trt_layermerge.planning.plan import PlanDocument

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
"""Written when the site is built; nothing of it is committed."""

project = "trt_layermerge"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "sphinx_copybutton"]
exclude_patterns = ["conf.py"]
html_theme = "furo"
html_title = project
html_show_sphinx = False
html_show_copyright = False
highlight_language = "none"  # what commands print is of no language
html_copy_source = False
html_extra_path = ["reference/schemas"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
suppress_warnings = [
    "myst.header",  # generated pages begin where they like
    "toc.not_included",  # pages of networks, experiments and decisions are reached from their index
    "myst.xref_missing",  # what lies outside of docs/ is named below; what is missing inside tests/docs looks for
]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_ivar = True
copybutton_prompt_text = "$ "

FORMATS: dict[str, type[BaseModel]] = {
    "manifest.json": Manifest,
    "ENGINE.manifest.json": EngineManifest,
    "plan.json": PlanDocument,
}

PYTHON = {
    "The stages as functions": ["trt_layermerge.api"],
    "Errors": ["trt_layermerge.errors"],
    "What you can add": [
        "trt_layermerge.runtimes.base",
        "trt_layermerge.importance.estimators.base",
        "trt_layermerge.planning.methods.base",
        "trt_layermerge.deployment.base",
    ],
    "Data and training": ["trt_layermerge.training.task", "trt_layermerge.training.recipe"],
    "Suites for what you add": ["trt_layermerge.testing.runtimes"],
}

COMMANDS = """# Commands

```{eval-rst}
.. click:: trt_layermerge.cli.main:cli
   :prog: trt-layermerge
   :nested: full
```
"""

TABLES = """## Tables

Profiles (`*.jsonl`), tables of importance and journals are lines of JSON: the first holds the format, its version and
the key that all rows are of, each further line is a row. A line that a crash cut off is dropped, and its row measured
again. `profiles/README.md` in the checkout describes the fields of a profile.
"""


def python_reference() -> str:
    """Of all that is for others to call or to derive from."""
    lines = ["# Python, name by name", ""]
    for title, modules in PYTHON.items():
        lines += [f"## {title}", ""]
        for name in modules:
            lines += [f"### `{name}`", "", "```{eval-rst}", f".. automodule:: {name}", "```", ""]
    return "\n".join(lines)


def formats() -> str:
    """Of files that others read, each with its JSON Schema."""
    lines = ["# File formats", "", "JSON Schemas are made from the types that write and check these files.", ""]
    for name, model in FORMATS.items():
        schema = f"{re.sub(r'[^a-z]+', '-', name.lower())}.schema.json".replace("-json.", ".")
        told = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | model.model_json_schema()
        write(REFERENCE / "schemas" / schema, json.dumps(told, indent=2) + "\n")
        about = (inspect.getdoc(model) or "").split("Attributes:")[0].strip()
        lines += [f"## `{name}`", "", about, "", f"Schema: `{schema}`, at the root of the site.", ""]
        lines += ["```json", json.dumps(told, indent=1), "```", ""]
    return "\n".join([*lines, TABLES])


def write(path: Path, text: str) -> None:
    """Write a file where it is new: what is unchanged is not built again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def outside(app: Any, page: str, source: list[str]) -> None:
    """Name by its path what a page links to outside of ``docs/``, for the site does not have it."""

    def named(link: re.Match[str]) -> str:
        words, target = link[1], link[2]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        if "://" in target or not path.startswith(".."):
            return link[0]
        found = path.removeprefix("../")
        return f"`{found}`" if words.strip("`") in found else f"{words} (`{found}`)"

    if page == "index":
        source[0] = re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text()).replace("](", "](./") + source[0]
        source[0] = source[0].replace("](./http", "](http")
    source[0] = re.sub(r"\[([^\]]+)\]\(([^)#\s]+)(?:#[^)\s]*)?\)", named, source[0])


def setup(app: Any) -> None:
    """Called by Sphinx."""
    write(REFERENCE / "commands.md", COMMANDS)
    write(REFERENCE / "names.md", python_reference())
    write(REFERENCE / "formats.md", formats())
    app.connect("source-read", outside)
