"""Options that commands share, and the TOML file that may hold them.

This module imports neither torch nor a runtime, which takes seconds: ``solve`` on plain tables does without them.
``job`` makes a job of the options.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import click
from click.core import ParameterSource

from trt_layermerge.cli.from_fields import options_of
from trt_layermerge.cli.method_settings import setting_options
from trt_layermerge.cli.show import keep_output
from trt_layermerge.errors import UsageError
from trt_layermerge.files import parse_toml, read_bytes
from trt_layermerge.importance.estimators.registry import DEFAULT_ESTIMATOR, estimators
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.methods.registry import DEFAULT_METHOD, method_names
from trt_layermerge.runtimes.base import MOST_THREADS, PRECISIONS, BuilderSettings
from trt_layermerge.runtimes.registry import DEFAULT_RUNTIME, runtime_kind, runtime_kinds
from trt_layermerge.training.recipe import Precision, Recipe
from trt_layermerge.training.recipes import recipe_names
from trt_layermerge.training.unlabelled.preprocessing import Colours, Layout, Preprocessing

_F = TypeVar("_F", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)
MOST = 1 << 24
"""Images, layers and the like; larger numbers are a slip of the pen, and libraries do not take them."""

COUNT = click.IntRange(1, MOST)


def read_shape(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Read a shape as people write it: ``3x224x224``."""
    if text is None:
        return None
    sizes = text.split("x")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise click.BadParameter(f"{text!r} is not a shape like 3x224x224")
    return tuple(int(size) for size in sizes)


def read_share(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float | None:
    """Read a share as people write it: ``5%`` or ``0.05``."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(%?)", text.strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < share <= 1:
        raise click.BadParameter(f"{text!r} is no share above 0 %; write 5% or 0.05")
    return share


def read_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """Take defaults of a command from a TOML file; keys are the options' names.

    Raises:
        UsageError: The file cannot be read, is no TOML, or has a key that no command of a job has.
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
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else None
            raise UsageError(f"{path}: there is no option {key!r}", hint=hint)
        if not isinstance(value, (str, int, float)):
            raise UsageError(f"{path}: {key} is neither text nor a number")
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
    of_compress = (refine_options, also_option, training_options)
    return click.command()(combined(*of_stages, *of_compress)(lambda: None)).params


def combined(*decorators: Callable[[_F], _F]) -> Callable[[_F], _F]:
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

explore_option = click.option(
    "--explore",
    is_flag=True,
    help="Train nothing: measure what five budgets cost, whatever --budget says, so that one can be chosen.",
)

_network_options = (
    click.option(
        "--weights",
        type=PATH,
        help="Checkpoint: safetensors, or a state dict of torch.save; FILE#KEY for one of several in it.",
    ),
    click.option(
        "--input",
        "input_shape",
        callback=read_shape,
        metavar="CxHxW",
        help="Shape of one sample, such as 3x224x224; of the first input where INPUTS declares several.",
    ),
    click.option("--max-kernel", type=COUNT, default=7, show_default=True, help="Of a merged block."),
    click.option("--max-layers", type=COUNT, default=12, show_default=True, help="In one block."),
    click.option(
        "--bottleneck-activations/--no-bottleneck-activations",
        default=False,
        show_default=True,
        help="Offer blocks that end at a linear bottleneck with an activation, too.",
    ),
    click.option("--batch", type=COUNT, default=8, show_default=True, help="Images at once."),
    click.option(
        "--method", default=DEFAULT_METHOD, show_default=True, help=f"Of planning: {', '.join(method_names())}."
    ),
    *setting_options(),
)
network_options = combined(click.argument("model"), *_network_options)
optional_network_options = combined(click.argument("model", required=False), *_network_options)
several_network_options = combined(
    click.argument("model", nargs=-1, required=True, metavar="MODEL..."), *_network_options
)


def _setting_option(name: str, kind: type[BuilderSettings], users: list[str]) -> Callable[[_F], _F]:
    """The option of a builder setting, read off its field."""
    about, default = kind.options()[name], getattr(kind(), name)
    (value,) = (one for one in _parts(get_type_hints(kind)[name]) if one is not type(None))
    text = f"{', '.join(users)}: {about.help}"
    if value is bool:
        flags = f"{about.name}/--no-{about.name.removeprefix('--')}"
        return click.option(flags, default=default, show_default=True, help=text)
    if usual := about.usual or ("" if default is None else f"{default:g}"):
        text += f"  [default: {usual}]"
    types = {int: click.IntRange(about.least, about.most), float: click.FloatRange(about.least, about.most), Path: PATH}
    return click.option(about.name, type=types.get(value, click.STRING), metavar=about.metavar or None, help=text)


def _parts(hint: Any) -> tuple[Any, ...]:
    """What a type is a union of."""
    return get_args(hint) or (hint,)


def _settings() -> dict[str, tuple[str, type[BuilderSettings], list[str]]]:
    """Builder settings by option: the field, the class that has it, and the kinds of runtimes that take it."""
    found: dict[str, tuple[str, type[BuilderSettings], list[str]]] = {}
    for kind in runtime_kinds():
        for name, option in kind.settings.options().items():
            found.setdefault(option.name, (name, kind.settings, []))[2].append(kind.name)
    return found


def _of_images(field: str) -> dict[str, Any]:
    """Default of an option of preprocessing."""
    value = getattr(Preprocessing(), field)
    return {"default": None, "show_default": f"{value[0]:g}" if isinstance(value, tuple) else str(value)}


def _numbers(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Read numbers as people write them: ``0.485,0.456,0.406``."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not numbers like 0.485,0.456,0.406") from None


def _pairs(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[tuple[str, str], ...]:
    """Read ``boxes=error,scores=logits``."""
    pairs = [part.strip().rpartition("=") for part in (text or "").split(",") if part.strip()]
    if not all(name and kind for name, _, kind in pairs):
        raise click.BadParameter(f"{text!r} is not like boxes=error,scores=logits")
    return tuple((name, kind) for name, _, kind in pairs)


settings_options = combined(*(_setting_option(*one) for one in _settings().values()))
device_options = combined(
    click.option(
        "--runtime",
        default=DEFAULT_RUNTIME,
        show_default=True,
        help=f"What engines run in: {', '.join(kind.name for kind in runtime_kinds())}.",
    ),
    click.option(
        "--precision", type=click.Choice(PRECISIONS), default="fp32", show_default=True, help="What engines compute in."
    ),
    click.option(
        "--threads", type=click.IntRange(1, MOST_THREADS), default=1, show_default=True, help="Of one run on a CPU."
    ),
    click.option("--profiles", type=PATH, default=Path("profiles"), show_default=True, help="Folder of the profiles."),
    settings_options,
)
_unlabelled_options = (
    click.option(
        "--resize", callback=read_shape, metavar="SIZE", help="Images without labels: shorter side, or height x width."
    ),
    click.option("--crop", callback=read_shape, metavar="SIZE", help="Their middle, likewise: 224, or 48x320."),
    click.option("--scale", type=float, **_of_images("scale"), help="What values of 0..255 are divided by."),
    click.option("--mean", callback=_numbers, metavar="R,G,B", **_of_images("mean"), help="Subtracted then."),
    click.option("--std", callback=_numbers, metavar="R,G,B", **_of_images("std"), help="Divided by then."),
    click.option("--channels", type=click.Choice(get_args(Colours)), **_of_images("channels")),
    click.option(
        "--layout", type=click.Choice(get_args(Layout)), **_of_images("layout"), help="Of the network's input."
    ),
    click.option(
        "--distances",
        callback=_pairs,
        metavar="OUTPUT=KIND,...",
        help="How outputs are compared with the original's: logits, probabilities, error.  [default: by what they are]",
    ),
    click.option(
        "--metric", type=PATH, metavar="FILE.py", help="With metric(outputs, original_outputs): one number a sample."
    ),
)
data_options = combined(
    click.option(
        "--task",
        type=PATH,
        help="Python file with a function task() that returns data, loss and metric; or imagefolder:FOLDER, "
        "cifar10:FOLDER, denoise-cifar10:FOLDER; or, without labels, images:FOLDER, images:FILE.py, FILE.npy.",
    ),
    *_unlabelled_options,
    click.option("--output", type=PATH, default=Path("engines/job"), show_default=True, help="Folder for all files."),
    click.option("--calibration", type=COUNT, default=512, show_default=True, help="Images for fits."),
    click.option("--held-out", type=COUNT, default=1024, show_default=True, help="Images for losses."),
    click.option(
        "--estimator",
        type=click.Choice(tuple(estimators())),
        default=DEFAULT_ESTIMATOR,
        show_default=True,
        help=f"Of importance: {'; '.join(f'{name}, {kind.summary}' for name, kind in estimators().items())}.",
    ),
    *(option for kind in estimators().values() for option in options_of(kind)),
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
        type=COUNT,
        metavar="N",
        help="How many cores that takes; engines are timed with --threads.  [default: OMP_NUM_THREADS, or all cores]",
    ),
)
also_option = click.option(
    "--also",
    metavar="RUNTIME",
    help="Build the result for this as well, such as tensorrt-rtx:sm75; one that runs here, such as torch, times it.",
)


def _of_recipe(field: str) -> dict[str, Any]:
    """Default of an option that a recipe decides where the option is not given; help shows the standard recipe's."""
    return {"default": None, "show_default": str(getattr(Recipe, field))}


training_options = combined(
    click.option("--finetune/--no-finetune", default=True, show_default=True, help="Train the compressed network."),
    click.option(
        "--recipe",
        show_default="default, or no-labels for a task without",
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
    click.option(
        "--accept-worse",
        is_flag=True,
        default=False,
        help="Deliver a network whose held-out loss is far above what was planned, too.",
    ),
    click.option("--fit-samples", type=COUNT, default=2048, show_default=True, help="Images for the fits."),
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


def read_settings(runtime: str, given: Mapping[str, Any]) -> BuilderSettings:
    """What the options say to the builder of a runtime.

    Raises:
        UsageError: They say something that it has no use for; or there is no such runtime.
    """
    own = runtime_kind(runtime).settings
    for option, (name, other, users) in _settings().items():
        about = other.options()[name]
        said = given.get(about.key) not in (None, getattr(other(), name))
        if said and option not in [one.name for one in own.options().values()]:
            raise UsageError(
                f"{option} is for {' and '.join(users)}, and the runtime is {runtime}",
                hint=f"pass --runtime {users[0]}",
            )
    fields = {name: given.get(option.key) for name, option in own.options().items()}
    return own(**{name: value for name, value in fields.items() if value is not None})
