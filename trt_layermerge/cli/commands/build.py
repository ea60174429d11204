"""``build``: an engine from ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import onnx
from click.core import ParameterSource

from trt_layermerge.cli.options import PATH, json_option, read_tuning, tensorrt_options
from trt_layermerge.cli.show import print_json
from trt_layermerge.delivery.engine_manifest import manifest_path
from trt_layermerge.delivery.engines import build_engine
from trt_layermerge.errors import UsageError
from trt_layermerge.onnxfile import inputs_of, read_onnx
from trt_layermerge.runtimes.graph_precision import graph_precision
from trt_layermerge.runtimes.protocol import PRECISIONS, BuildOptions
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.runtimes.trtexec import trtexec


def _read_range(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Read a range as people write it: ``1-32``."""
    if text is None:
        return None
    low, _, high = text.partition("-")
    if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high)):
        raise click.BadParameter(f"{text!r} is not a range like 1-32")
    return int(low), int(high)


@click.command("build")
@click.argument("model", type=PATH)
@click.option("--output", type=PATH, help="The engine's file.  [default: beside MODEL, named after it]")
@click.option("--runtime", default="onnxruntime", show_default=True, help="What the engine is for.")
@click.option("--target", help="Device to compile for ahead of time, such as sm75.  [default of tensorrt-rtx: sm75]")
@click.option(
    "--precision", type=click.Choice(PRECISIONS), help="What MODEL is written in.  [default: read off its graph]"
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of one run on a CPU.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Images at once.")
@click.option(
    "--batches", callback=_read_range, metavar="MIN-MAX", help="TensorRT: every batch that the engine takes, as 1-32."
)
@tensorrt_options
@click.option("--print-trtexec", is_flag=True, help="TensorRT: print trtexec's nearest command, and build nothing.")
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
    print_trtexec: bool,
    as_json: bool,
    **tensorrt: Any,
) -> None:
    """Build an engine from MODEL, an ONNX file, and write it with a manifest.

    The engine is for this device, or with --runtime tensorrt-rtx for a GPU that need not be here.
    """
    if output is not None and output.resolve() == model.resolve():
        raise click.UsageError("--output is the model itself")
    tuning = read_tuning(runtime, tensorrt)
    if batches and not runtime.startswith("tensorrt"):
        raise UsageError(f"--batches is for TensorRT, and the runtime is {runtime}")
    if print_trtexec and runtime != "tensorrt":
        raise UsageError(f"--print-trtexec is for TensorRT, and the runtime is {runtime}")
    graph = read_onnx(model)
    options = BuildOptions(threads, precision or graph_precision(graph), batches=batches, tuning=tuning)
    if print_trtexec:
        fixed = _shapes(graph, 0)  # an open batch stays 0 there
        open_inputs = {name: shape for name, shape in _shapes(graph, batch).items() if not all(fixed[name])}
        click.echo(trtexec(model, options, open_inputs))
        return
    shapes = _shapes(graph, batch)
    _require_batch(model, shapes, batch)
    made = get_runtime(runtime if target is None else f"{runtime}:{target}")
    file = output or model.with_suffix(_suffix(made.name, model.suffix))
    manifest = build_engine(model, made, options, shapes, file)
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


def _suffix(runtime: str, suffix: str) -> str:
    """What an engine's file ends in: its target, where it has one; ONNX Runtime's engines are ONNX files still."""
    name, _, target = runtime.partition(":")
    if name.startswith("onnxruntime"):
        return f".engine{suffix}"
    return f".{target}.engine" if target else ".engine"


def _shapes(model: onnx.ModelProto, batch: int) -> dict[str, tuple[int, ...]]:
    """Every input of a model with its first dimension set."""
    shapes = {}
    for name, value in inputs_of(model.graph).items():
        if sizes := [size.dim_value for size in value.type.tensor_type.shape.dim]:
            shapes[name] = (sizes[0] or batch, *sizes[1:])
    return shapes
