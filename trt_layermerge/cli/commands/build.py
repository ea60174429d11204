"""``build``: an engine from ONNX."""

from __future__ import annotations

from pathlib import Path

import click
import onnx

from trt_layermerge.cli.options import PATH, json_option
from trt_layermerge.cli.show import print_json
from trt_layermerge.delivery.engine_manifest import manifest_path
from trt_layermerge.delivery.engines import build_engine
from trt_layermerge.onnxfile import inputs_of, read_onnx
from trt_layermerge.runtimes.graph_precision import PRECISIONS, graph_precision
from trt_layermerge.runtimes.protocol import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime


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
@json_option
def command(
    model: Path,
    output: Path | None,
    runtime: str,
    target: str | None,
    precision: str | None,
    threads: int,
    batch: int,
    as_json: bool,
) -> None:
    """Build an engine from MODEL, an ONNX file, and write it with a manifest.

    The engine is for this device, or with --runtime tensorrt-rtx for a GPU that need not be here.
    """
    if output is not None and output.resolve() == model.resolve():
        raise click.UsageError("--output is the model itself")
    made = get_runtime(runtime if target is None else f"{runtime}:{target}")
    file = output or model.with_suffix(_suffix(made.name, model.suffix))
    graph = read_onnx(model)
    options = BuildOptions(threads=threads, precision=precision or graph_precision(graph))
    manifest = build_engine(model, made, options, _shapes(graph, batch), file)
    device = manifest.device
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
        click.echo(f"{file} for {device.name}, {device.precision}, batch {batch} ({device.runtime_version})")


def _suffix(runtime: str, suffix: str) -> str:
    """What an engine's file ends in: its target, where it has one; ONNX Runtime's engines are ONNX files still."""
    name, _, target = runtime.partition(":")
    return f".engine{suffix}" if name.startswith("onnxruntime") else f".{target}.engine".replace("..", ".")


def _shapes(model: onnx.ModelProto, batch: int) -> dict[str, tuple[int, ...]]:
    """Every input of a model with its first dimension set."""
    shapes = {}
    for name, value in inputs_of(model.graph).items():
        if sizes := [size.dim_value for size in value.type.tensor_type.shape.dim]:
            shapes[name] = (sizes[0] or batch, *sizes[1:])
    return shapes
