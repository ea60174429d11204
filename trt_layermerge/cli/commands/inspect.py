"""``inspect``: what can be merged in a network, and why the rest cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trt_layermerge.cli.config_file import config_option
from trt_layermerge.cli.inspected_plan import inspect_plan
from trt_layermerge.cli.options import json_option, network_options, settings_of
from trt_layermerge.cli.sections import SectionedCommand
from trt_layermerge.pipeline.settings import job_of


@click.command("inspect", cls=SectionedCommand)
@network_options
@config_option
@json_option
def command(as_json: bool, **given: Any) -> None:
    """Show the chains, skips and breaks of MODEL, and count its candidates.

    MODEL is torchvision:NAME, timm:NAME, package.module:factory, FILE.py:factory or FILE.onnx; or FILE.engine, which
    TensorRT-RTX compiled: then the kernels of a run are listed, as the plan's text has them. It takes no GPU.
    """
    if given["model"].endswith(".engine"):
        inspect_plan(Path(given["model"]), as_json=as_json)
        return
    from trt_layermerge.cli.inspected_network import inspect_network  # it imports torch

    inspect_network(job_of(**settings_of(given)), as_json=as_json)
