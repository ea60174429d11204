"""Pages that are made, not written: the front page, the reference of commands, of Python and of file formats.

Run by MkDocs (its plugin gen-files) while the site is built; nothing of it lies in the checkout.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import mkdocs_gen_files
from pydantic import BaseModel

from trt_layermerge.delivery.engine_manifest import EngineManifest
from trt_layermerge.delivery.manifest import Manifest
from trt_layermerge.planning.plan import PlanFile

ROOT = Path(__file__).parents[2]

FORMATS: dict[str, type[BaseModel]] = {
    "manifest.json": Manifest,
    "ENGINE.manifest.json": EngineManifest,
    "plan.json": PlanFile,
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
    "Data, losses and metrics": ["trt_layermerge.training.task", "trt_layermerge.training.recipe"],
    "Suites that a runtime, estimator or method of yours must pass": ["trt_layermerge.testing"],
}


def write(path: str, text: str) -> None:
    """Write a page."""
    with mkdocs_gen_files.open(path, "w") as file:
        file.write(text)


def front_page() -> str:
    """The README, its links as they are from the folder of pages."""
    return re.sub(r"\]\(docs/", "](", (ROOT / "README.md").read_text()).replace("](examples/", "](../examples/")


def reference(modules: dict[str, list[str]]) -> str:
    """Of Python."""
    lines = ["# Python", ""]
    for title, names in modules.items():
        lines += [f"## {title}", "", *(f"::: {name}\n    options:\n      heading_level: 3\n" for name in names)]
    return "\n".join(lines)


def formats() -> str:
    """Of files that others read, each with its JSON Schema."""
    lines = ["# File formats", "", "JSON Schemas, made from the types that write and check these files.", ""]
    for name, model in FORMATS.items():
        schema = f"{re.sub(r'[^a-z]+', '-', name.lower()).strip('-')}.schema.json"
        lines += [f"## `{name}`", "", inspect.getdoc(model) or "", "", f"Schema: [{schema}]({schema})", ""]
        write(f"reference/{schema}", json.dumps(schema_of(model), indent=2) + "\n")
    lines += [
        "## Tables",
        "",
        "Profiles (`*.jsonl`), tables of importance and journals are lines of JSON: the first holds the format, its version",
        "and the key that all rows are of, each further line is a row. A line that is cut off by a crash is dropped, and its",
        "row measured again. [profiles/README.md](../../profiles/README.md) describes the fields of a profile.",
        "",
    ]
    return "\n".join(lines)


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema of what is written."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(mode="serialization")}


COMMANDS = """# Commands

::: mkdocs-click
    :module: trt_layermerge.cli.main
    :command: cli
    :prog_name: trt-layermerge
    :depth: 1
    :style: table
"""

write("index.md", front_page())
write("reference/commands.md", COMMANDS)
write("reference/python.md", reference(PYTHON))
write("reference/formats.md", formats())
