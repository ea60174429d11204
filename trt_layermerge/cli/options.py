"""Options that commands share, and the TOML file that may hold them.

This module imports neither torch nor a runtime, which takes seconds: ``solve`` on plain tables does without them.
``job`` makes a job of the options.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.core import ParameterSource

from trt_layermerge.cli.show import keep_output
from trt_layermerge.errors import UsageError
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.methods import DEFAULT, METHODS
from trt_layermerge.runtimes.protocol import PRECISIONS, Tuning
from trt_layermerge.training.recipe import Precision, Recipe
from trt_layermerge.training.recipes import recipe_names

ESTIMATORS = ("fit", "product", "finetune", "gates")
"""Of ``importance.estimate.Estimator``, which imports torch."""

F = TypeVar("F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


def read_shape(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Read a shape as people write it: ``3x224x224``."""
    if text is None:
        return None
    sizes = text.split("x")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise click.BadParameter(f"{text!r} is not a shape like 3x224x224")
    return tuple(int(size) for size in sizes)


def read_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """Take defaults of a command from a TOML file; keys are the options' names.

    Raises:
        UsageError: The file cannot be read, is no TOML, or has a key that no command of a job has.
    """
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the configuration {path}: {error}") from error
    own, known = _keys(ctx.command.params), _keys(_job_parameters())
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else None
            raise UsageError(f"{path}: there is no option {key!r}", hint=hint)
        if not isinstance(value, (str, int, float)):
            raise UsageError(f"{path}: {key} is neither text nor a number")
        if name in own:
            # As text, so that it is read as it would be on the command line.
            ctx.default_map = {**(ctx.default_map or {}), own[name]: str(value)}


def _keys(parameters: Iterable[click.Parameter]) -> dict[str, str]:
    """What parameters may be called in a file, with click's name for each: ``input`` is ``input_shape``."""
    return {
        spelling.removeprefix("--").replace("-", "_"): str(parameter.name)
        for parameter in parameters
        for spelling in parameter.opts
        if parameter.expose_value
    }


def _job_parameters() -> list[click.Parameter]:
    """The options of ``compress``; a stage accepts a file with all of them and takes those that it has."""
    of_stages = (network_options, device_options, data_options, torch_options, plan_options)
    of_compress = (refine_options, also_option, training_options)
    return click.command()(combined(*of_stages, *of_compress)(lambda: None)).params


def combined(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator; help lists them in this order."""
    return lambda function: reduce(lambda inner, decorator: decorator(inner), reversed(decorators), function)


config_option = click.option(
    "--config", type=PATH, is_eager=True, expose_value=False, callback=read_config, help="TOML file with any of these."
)
json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=keep_output,
    help="Print one JSON object, and nothing else.",
)
csv_option = click.option(
    "--csv", "as_csv", is_flag=True, is_eager=True, callback=keep_output, help="Print CSV, and nothing else."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be measured and how long it should take.")

_network_options = (
    click.option("--weights", type=PATH, help="Checkpoint: safetensors, or a state dict of torch.save."),
    click.option(
        "--input",
        "input_shape",
        callback=read_shape,
        metavar="CxHxW",
        help="Shape of one sample, such as 3x224x224; of the first input where INPUTS declares several.",
    ),
    click.option("--max-kernel", type=click.IntRange(1), default=7, show_default=True, help="Of a merged block."),
    click.option("--max-layers", type=click.IntRange(1), default=12, show_default=True, help="In one block."),
    click.option(
        "--bottleneck-activations/--no-bottleneck-activations",
        default=False,
        show_default=True,
        help="Offer blocks that end at a linear bottleneck with an activation, too.",
    ),
    click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Images at once."),
    click.option("--method", default=DEFAULT, show_default=True, help=f"Of planning: {', '.join(METHODS)}."),
)
network_options = combined(click.argument("model"), *_network_options)
optional_network_options = combined(click.argument("model", required=False), *_network_options)
tensorrt_options = combined(
    click.option("--workspace", type=click.IntRange(1), metavar="MiB", help="TensorRT: most scratch of a layer."),
    click.option("--optimization-level", type=click.IntRange(0, 5), help="TensorRT: how hard the builder tries."),
    click.option("--tf32/--no-tf32", default=False, show_default=True, help="TensorRT: round float32 to TF32."),
    click.option("--build-timeout", type=click.FloatRange(1), metavar="SECONDS", help="TensorRT: of one engine."),
    click.option("--timing-cache", type=PATH, help="TensorRT: file of the timing cache.  [default: one per device]"),
    click.option("--cuda-graph/--no-cuda-graph", default=True, show_default=True, help="TensorRT: time CUDA graphs."),
    click.option("--lock-clocks", type=click.IntRange(1), metavar="MHZ", help="TensorRT: hold the GPU's clock rate."),
)
device_options = combined(
    click.option("--runtime", default="onnxruntime", show_default=True, help="What engines run in."),
    click.option(
        "--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True, help="What engines compute in."
    ),
    click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of one run on a CPU."),
    click.option("--profiles", type=PATH, default=Path("profiles"), show_default=True, help="Folder of the profiles."),
    tensorrt_options,
)
data_options = combined(
    click.option(
        "--task",
        type=PATH,
        help="Python file with a function task() that returns data, loss and metric; or imagefolder:FOLDER, "
        "cifar10:FOLDER, denoise-cifar10:FOLDER.",
    ),
    click.option("--output", type=PATH, default=Path("engines/job"), show_default=True, help="Folder for all files."),
    click.option("--calibration", type=click.IntRange(1), default=512, show_default=True, help="Images for fits."),
    click.option("--held-out", type=click.IntRange(1), default=1024, show_default=True, help="Images for losses."),
    click.option(
        "--estimator",
        type=click.Choice(ESTIMATORS),
        default=ESTIMATORS[0],
        show_default=True,
        help="Of importance: closed form, product of weights, training each choice for a while, or one training of "
        "gates that choose activations (ELC).",
    ),
    click.option("--tuning-share", type=float, default=0.04, show_default=True, help="finetune: of the training data."),
    click.option("--tuning-epochs", type=int, default=1, show_default=True, help="finetune: passes over that share."),
    click.option("--tuning-steps", type=int, metavar="N", help="finetune: steps, in place of epochs."),
    click.option("--tuning-lr", type=float, default=0.1, show_default=True, help="finetune: peak learning rate."),
    click.option("--tuning-clip-norm", type=float, show_default="any", help="finetune: longest gradient."),
    click.option("--tuning-seed", type=int, default=0, show_default=True, help="finetune: of data and new weights."),
    click.option("--gates-penalty", type=float, default=0.1, show_default=True, help="gates: worth of an activation."),
    click.option("--gates-share", type=float, default=1.0, show_default=True, help="gates: of the training data."),
    click.option("--gates-epochs", type=int, default=1, show_default=True, help="gates: passes over that share."),
    click.option("--gates-lr", type=float, default=0.02, show_default=True, help="gates: peak learning rate."),
    click.option("--gates-distillation", type=float, default=0.0, show_default=True, help="gates: original's weight."),
    click.option("--gates-seed", type=int, default=0, show_default=True, help="gates: of data."),
)
plan_options = combined(
    click.option("--budget", help="Of latency: 0.6 of the original, or 22.3ms.  [default: 0.6]"),
    click.option("--speedup", type=float, help="The same as a factor: 1.8."),
    click.option(
        "--confidence", type=float, metavar="P", help="Least probability of meeting the budget, such as 0.95."
    ),
)
refine_options = click.option(
    "--refine", type=click.IntRange(0), default=0, metavar="N", help="Measure the N best plans, and decide by that."
)
torch_options = combined(
    click.option(
        "--device",
        default="auto",
        show_default=True,
        help="Where importance is measured, fits are solved and networks trained: auto (a GPU, if torch sees one), "
        "cpu, cuda, cuda:N.",
    ),
    click.option(
        "--cpu-threads",
        type=click.IntRange(1),
        metavar="N",
        help="How many cores that takes; engines are timed with --threads.  [default: OMP_NUM_THREADS, or all cores]",
    ),
)
also_option = click.option(
    "--also", metavar="RUNTIME", help="Build the result for this as well, such as tensorrt-rtx:sm75."
)


def _of_recipe(field: str) -> dict[str, Any]:
    """Default of an option that a recipe decides where the option is not given; help shows the standard recipe's."""
    return {"default": None, "show_default": str(getattr(Recipe, field))}


training_options = combined(
    click.option("--finetune/--no-finetune", default=True, show_default=True, help="Train the compressed network."),
    click.option(
        "--recipe",
        default="default",
        show_default=True,
        metavar="NAME",
        help=f"How to train: {', '.join(recipe_names())}, or a FILE.toml; the options below go before what it says.",
    ),
    click.option("--epochs", type=int, **_of_recipe("epochs")),
    click.option("--lr", type=float, **_of_recipe("lr"), help="Peak learning rate."),
    click.option("--weight-decay", type=float, **_of_recipe("weight_decay")),
    click.option("--warmup", type=float, **_of_recipe("warmup"), help="Share of all steps."),
    click.option("--distillation", type=float, show_default="0.9", help="Weight of the original's word."),
    click.option("--temperature", type=float, **_of_recipe("temperature")),
    click.option("--clip-norm", type=float, help="Longest gradient."),
    click.option("--precision-training", type=click.Choice(get_args(Precision)), **_of_recipe("precision")),
    click.option(
        "--decouple", type=float, **_of_recipe("decouple"), help="Share of all steps in which what goes fades (ELC)."
    ),
    click.option("--seed", type=int, **_of_recipe("seed")),
    click.option("--fit-samples", type=click.IntRange(1), default=2048, show_default=True, help="Images for the fits."),
)


def read_budget(budget: Any, speedup: float | None) -> Budget:
    """The budget that ``--budget`` or ``--speedup`` asks for; 0.6 where neither does.

    Raises:
        UsageError: Both do, or the budget cannot be.
    """
    if budget is not None and speedup is not None:
        source = click.get_current_context().get_parameter_source
        if source("budget") is source("speedup"):
            raise UsageError("--budget and --speedup say the same thing; pass one of them")
        if source("budget") is ParameterSource.COMMANDLINE:  # it goes before what a file says
            speedup = None
    if speedup is not None:
        return Budget.from_speedup(speedup)
    return Budget.parse("0.6" if budget is None else str(budget))


def read_tuning(runtime: str | None, given: Mapping[str, Any]) -> Tuning:
    """What the options say to TensorRT.

    Raises:
        UsageError: They say something that the runtime has no use for.
    """
    fields = {name: given[option] for name, option in _TUNING.items() if given.get(option) is not None}
    useful = _USEFUL.get((runtime or "").partition(":")[0], ())
    for name, value in fields.items():
        if name not in useful and value != getattr(Tuning(), name):
            option = _TUNING[name].replace("_", "-")
            raise UsageError(
                f"--{option} is for TensorRT, and the runtime is {runtime}", hint="pass --runtime tensorrt"
            )
    return Tuning(**fields)


_TUNING = {
    "workspace_mib": "workspace",
    "optimization_level": "optimization_level",
    "tf32": "tf32",
    "build_seconds": "build_timeout",
    "timing_cache": "timing_cache",
    "cuda_graph": "cuda_graph",
    "lock_clocks_mhz": "lock_clocks",
}
"""Field -> option."""

_USEFUL = {
    "tensorrt": tuple(_TUNING),
    "tensorrt-rtx": ("workspace_mib", "optimization_level", "tf32", "build_seconds"),  # nothing is timed
}
"""Runtime -> the fields that it looks at."""
