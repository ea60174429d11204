"""The TOML file that may hold the options of a job."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from trt_layermerge.cli.options import (
    PATH,
    also_option,
    data_options,
    device_options,
    fleet_option,
    network_options,
    plan_options,
    rebuilds_option,
    refine_options,
    torch_options,
    training_options,
)
from trt_layermerge.cli.sections import OUTPUT, combined, option, section
from trt_layermerge.cli.signing import sign_option
from trt_layermerge.errors import UsageError, did_you_mean
from trt_layermerge.files import parse_toml, read_bytes


def read_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """Take defaults of a command from a TOML file; keys are the options' names.

    Raises:
        UsageError: The file cannot be read, is no TOML, or has a key that no command of a job has, or an empty value.
    """
    if path is None:
        return
    try:
        values = parse_toml(read_bytes(path))
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"cannot read the configuration {path}: it {error}") from error
    own, known = _keys(ctx.command.params), _keys(_job_parameters())
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            raise UsageError(f"{path}: there is no option {key!r}", hint=did_you_mean(name, known))
        if not isinstance(value, (str, int, float)):
            raise UsageError(f"{path}: {key} is neither text nor a number")
        if value == "":
            raise UsageError(f"{path}: {key} is empty", hint="give it a value, or leave it out")
        if name in own:
            # As text, so that it is read as it would be on the command line.
            told = str(value) if own[name].nargs == 1 else (str(value),)
            ctx.default_map = {**(ctx.default_map or {}), str(own[name].name): told}


def _keys(parameters: Iterable[click.Parameter]) -> dict[str, click.Parameter]:
    """Parameters by what they may be called in a file: ``input`` is the one that click calls ``input_shape``."""
    return {
        spelling.removeprefix("--").replace("-", "_"): parameter
        for parameter in parameters
        for spelling in parameter.opts
        if parameter.expose_value
    }


def _job_parameters() -> list[click.Parameter]:
    """The options of ``compress``; a stage accepts a file with all of them and takes those that it has."""
    of_stages = (network_options, device_options, data_options, torch_options, plan_options)
    of_compress = (fleet_option, refine_options, rebuilds_option, also_option, training_options, sign_option)
    return click.command()(combined(*of_stages, *of_compress)(lambda: None)).params


config_option = section(
    OUTPUT,
    option(
        "--config",
        type=PATH,
        is_eager=True,
        expose_value=False,
        callback=read_config,
        metavar="FILE.toml",
        help="Read options from a TOML file; those on the command line go before it.",
    ),
)
