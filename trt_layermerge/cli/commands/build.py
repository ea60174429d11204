"""``build``: an engine from ONNX."""

from __future__ import annotations

from pathlib import Path

import click

from trt_layermerge.cli.options import PATH, json_option
from trt_layermerge.cli.show import print_json
from trt_layermerge.files import sha256
from trt_layermerge.onnxfile import inputs_of, read_onnx
from trt_layermerge.runtimes.protocol import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime


@click.command("build")
@click.argument("model", type=PATH)
@click.option("--output", type=PATH, help="The engine's file.  [default: MODEL with .engine before .onnx]")
@click.option("--runtime", default="onnxruntime", show_default=True, help="What the engine is for.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of one run on a CPU.")
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Images at once.")
@json_option
def command(model: Path, output: Path | None, runtime: str, threads: int, batch: int, as_json: bool) -> None:
    """Build an engine for this device from MODEL, an ONNX file with one input."""
    target = output or model.with_suffix(f".engine{model.suffix}")
    if target.resolve() == model.resolve():
        raise click.UsageError("--output is the model itself")
    made = get_runtime(runtime)
    shapes = _shapes(model, batch)
    engine = made.build(model, BuildOptions(threads=threads), shapes)
    engine.save(target)
    if as_json:
        print_json({"engine": str(target), "sha256": sha256(target), "inputs": {k: list(v) for k, v in shapes.items()}})
    else:
        click.echo(f"{target} for {engine.describe().name}, batch {batch}")


def _shapes(model: Path, batch: int) -> dict[str, tuple[int, ...]]:
    """Every input of a model with its first dimension set.

    Raises:
        ModelError: It is no ONNX file.
    """
    shapes = {}
    for name, value in inputs_of(read_onnx(model, weights=False).graph).items():
        if sizes := [size.dim_value for size in value.type.tensor_type.shape.dim]:
            shapes[name] = (sizes[0] or batch, *sizes[1:])
    return shapes
