"""``build``: an engine from ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import onnx
from click.core import ParameterSource

from trt_layermerge.cli.options import COUNT, MOST, PATH, THREADS, json_option, settings_options
from trt_layermerge.cli.sections import SectionedCommand, option, section
from trt_layermerge.cli.show import print_json
from trt_layermerge.cli.signing import sign_option
from trt_layermerge.delivery.delivery_signature import SigningKey
from trt_layermerge.delivery.engine_exports import Exports
from trt_layermerge.delivery.engine_manifest import EngineManifest, manifest_path
from trt_layermerge.delivery.engines import build_engine, engine_suffix, try_model
from trt_layermerge.errors import UsageError
from trt_layermerge.onnxfile import inputs_of, named_model, read_onnx
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.settings import builder_settings
from trt_layermerge.probe import probe
from trt_layermerge.runtimes.base import PRECISIONS, BuildOptions, RuntimeKind
from trt_layermerge.runtimes.graph_precision import graph_precision
from trt_layermerge.runtimes.registry import DEFAULT_RUNTIME, get_runtime, runtime_kind, runtime_kinds, runtime_names


def _read_range(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Read a range as people write it: ``1-32``."""
    if text is None:
        return None
    low, _, high = text.partition("-")
    if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high) <= MOST):
        raise click.BadParameter(f"{text!r} is not a range like 1-32")
    return int(low), int(high)


_COMPILERS = [kind for kind in runtime_kinds() if kind.targets]
_RANGES = ", ".join(kind.name for kind in runtime_kinds() if kind.batch_ranges)


_EXPORTS = section(
    "Files of trtexec",
    option("--export-times", type=PATH, metavar="FILE", help="Time the engine, and write its runs as trtexec does."),
    option("--export-profile", type=PATH, metavar="FILE", help="Likewise times of its layers; of tensorrt."),
    option("--export-layer-info", type=PATH, metavar="FILE", help="Likewise what its layers are; of tensorrt."),
)


@click.command("build", cls=SectionedCommand)
@click.argument("model", type=PATH)
@click.option("--output", type=PATH, help="The engine's file.  [default: beside MODEL, named after it]")
@click.option(
    "--runtime", default=DEFAULT_RUNTIME, show_default=True, help=f"What builds it: {', '.join(runtime_names())}."
)
@click.option(
    "--target",
    help="Device to build for; "
    + "; ".join(f"{kind.name}: {', '.join(kind.targets)}" for kind in _COMPILERS)
    + ".  [default: the GPU that is here, where it is one of these; else the first]",
)
@click.option(
    "--precision", type=click.Choice(PRECISIONS), help="What MODEL is written in.  [default: read off its graph]"
)
@click.option(
    "--threads", type=THREADS, default=BuildOptions.threads, show_default=True, help="CPU threads of one run."
)
@click.option("--batch", type=COUNT, default=Job.batch, show_default=True, help="Images that one run takes.")
@click.option(
    "--batches",
    callback=_read_range,
    metavar="MIN-MAX",
    help=f"Let the engine take these batches, as 1-32; of {_RANGES}.",
)
@settings_options
@_EXPORTS
@sign_option
@click.option("--print-trtexec", is_flag=True, help="Print trtexec's nearest command, and build nothing.")
@json_option
def command(
    model: Path,
    output: Path | None,
    runtime: str,
    target: str | None,
    precision: str | None,
    threads: int,
    batch: int,
    batches: tuple[int, int] | None,
    sign: SigningKey | None,
    print_trtexec: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Build an engine from MODEL, an ONNX file, and write it with a manifest.

    The engine is for this device, or with --target for a GPU that need not be here.
    """
    if output is not None and output.resolve() == model.resolve():
        raise click.UsageError("--output is the model itself")
    kind, told = runtime_kind(runtime), builder_settings(runtime, settings)
    if batches and not kind.batch_ranges:
        raise UsageError(f"--batches is for {_RANGES}, and the runtime is {runtime}")
    if model.is_file():
        probe(try_model, model)
    graph = read_onnx(model)
    written_in = precision or graph_precision(graph, named_model(model))
    options = BuildOptions(threads, written_in, batches=batches, settings=told)
    if print_trtexec:
        click.echo(_benchmark_command(kind, model, graph, options, batch))
        return
    shapes = _shapes(graph, batch)
    _require_batch(model, shapes, batch)
    made = get_runtime(runtime if target is None else f"{runtime}:{target}")
    wanted = Exports(*(settings[name] for name in ("export_times", "export_profile", "export_layer_info")))
    wanted.require(made)
    file = output or model.with_suffix(engine_suffix(made))
    manifest = build_engine(model, made, options, shapes, file, sign)
    wanted.write(made, file, options)
    _tell(manifest, file, as_json)


def _tell(manifest: EngineManifest, file: Path, as_json: bool) -> None:
    device, built = manifest.device, next(iter(manifest.inputs.values()))[0]
    if as_json:
        print_json(
            {
                "engine": str(file),
                "manifest": str(manifest_path(file)),
                "sha256": manifest.files[file.name],
                "inputs": {name: list(shape) for name, shape in manifest.inputs.items()},
                "device": device.name,
                "runtime": device.runtime,
                "runtime_version": device.runtime_version,
                "precision": device.precision,
            }
        )
    else:
        click.echo(f"{file} for {device.name}, {device.precision}, batch {built} ({device.runtime_version})")


def _require_batch(model: Path, shapes: dict[str, tuple[int, ...]], batch: int) -> None:
    """See that the engine will be of the batch that was asked for.

    Raises:
        UsageError: A batch was asked for, and the file fixes another one.
    """
    asked = click.get_current_context().get_parameter_source("batch") is not ParameterSource.DEFAULT
    fixed = [f"{name} of batch {shape[0]}" for name, shape in shapes.items() if shape[0] != batch]
    if asked and fixed:
        raise UsageError(
            f"--batch {batch}, and {model} takes {', '.join(fixed)} and no other",
            hint="leave --batch out, or export the model with a dynamic batch",
        )


def _benchmark_command(
    kind: RuntimeKind, model: Path, graph: onnx.ModelProto, options: BuildOptions, batch: int
) -> str:
    fixed = _shapes(graph, 0)  # an open batch stays 0 there
    open_inputs = {name: shape for name, shape in _shapes(graph, batch).items() if not all(fixed[name])}
    found = kind.benchmark_command(model, options, open_inputs)
    if found is None:
        raise UsageError(f"--print-trtexec: runtime {kind.name} has no such tool")
    return found


def _shapes(model: onnx.ModelProto, batch: int) -> dict[str, tuple[int, ...]]:
    """Every input of a model with its first dimension set."""
    shapes = {}
    for name, value in inputs_of(model.graph).items():
        if sizes := [size.dim_value for size in value.type.tensor_type.shape.dim]:
            shapes[name] = (sizes[0] or batch, *sizes[1:])
    return shapes
