"""Options that commands share, by stage.

This module imports neither torch nor a runtime, which takes seconds: help, completion and ``solve`` on plain tables do
without them. Defaults are those of a job, and written there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import click

from trt_layermerge.cli.field_options import builder_setting_options, estimator_options, method_options
from trt_layermerge.cli.parsing import read_numbers, read_pairs, read_shape
from trt_layermerge.cli.sections import OUTPUT, Count, OneOf, combined, option, section, suggesting, suggesting_files
from trt_layermerge.cli.show import keep_output
from trt_layermerge.importance.estimators.registry import DEFAULT_ESTIMATOR, estimators
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.settings import DEFAULT_OUTPUT
from trt_layermerge.planning.methods.registry import method_names
from trt_layermerge.runtimes.base import MOST_THREADS, PRECISIONS
from trt_layermerge.runtimes.registry import runtime_names
from trt_layermerge.training.recipe import Precision, Recipe
from trt_layermerge.training.recipes import recipe_names
from trt_layermerge.training.unlabelled.preprocessing import Colours, Layout, Preprocessing

PATH = click.Path(path_type=Path)
MOST = 1 << 24
"""Images, layers and the like; larger numbers are a slip of the pen, and libraries do not take them."""

COUNT, THREADS = Count(MOST), Count(MOST_THREADS)

_USUAL, _RECIPE, _STEPS = Job(model="", output=DEFAULT_OUTPUT), Recipe(distillation=0.9), Preprocessing()


def settings_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a command's options. A stage without those of training trains nothing."""
    return {"finetune": False, **given}


json_option = section(
    OUTPUT,
    option(
        "--json",
        "as_json",
        is_flag=True,
        is_eager=True,
        callback=keep_output,
        help="Print one JSON object to standard output, and nothing else.",
    ),
)
csv_option = section(
    OUTPUT,
    option(
        "--csv",
        "as_csv",
        is_flag=True,
        is_eager=True,
        callback=keep_output,
        help="Print CSV to standard output, and nothing else.",
    ),
)
explore_option = section(
    "Plan",
    option(
        "--explore",
        is_flag=True,
        help="Train nothing: measure what five budgets cost, whatever --budget says, so that one can be chosen.",
    ),
)
dry_run_option = section(
    OUTPUT, option("--dry-run", is_flag=True, help="Say what would be measured and how long that should take.")
)

_network_options = (
    section(
        "Network",
        option(
            "--weights",
            type=PATH,
            metavar="FILE",
            help="Load this checkpoint: safetensors, or a state dict of torch.save; FILE#KEY for one of several in it.",
        ),
        option(
            "--input",
            "input_shape",
            callback=read_shape,
            metavar="CxHxW",
            help="Shape of one sample without the batch, such as 3x224x224; of the first of several inputs.",
        ),
        option(
            "--batch", type=COUNT, default=_USUAL.batch, show_default=True, help="Images that one engine run takes."
        ),
    ),
    section(
        "What may change",
        option(
            "--method",
            default=_USUAL.method,
            show_default=True,
            metavar="NAME",
            **suggesting(method_names),
            help=f"How to decide what is kept, merged and dropped: {', '.join(method_names())}.",
        ),
        *method_options(),
        option(
            "--max-kernel",
            type=COUNT,
            default=_USUAL.limits.max_kernel,
            show_default=True,
            help="Make no convolution with a larger kernel than this; fewer candidates are measured sooner.",
        ),
        option(
            "--max-layers",
            type=COUNT,
            default=_USUAL.limits.max_layers,
            show_default=True,
            help="Replace no more layers than this by one.",
        ),
        option(
            "--bottleneck-activations/--no-bottleneck-activations",
            default=_USUAL.limits.bottleneck_activations,
            show_default=True,
            help="Offer blocks that end at a linear bottleneck with an activation, too.",
        ),
    ),
)


def _model(**about: Any) -> Any:
    return click.argument("model", **about, **suggesting_files())


network_options = combined(_model(), *_network_options)
optional_network_options = combined(_model(required=False), *_network_options)
several_network_options = combined(_model(nargs=-1, required=True, metavar="MODEL..."), *_network_options)

settings_options = section("Engine builder", *builder_setting_options())
device_options = combined(
    section(
        "Engines",
        option(
            "--runtime",
            default=_USUAL.runtime,
            show_default=True,
            metavar="NAME",
            **suggesting(runtime_names),
            help=f"Build, run and time engines with this: {', '.join(runtime_names())}; doctor says what is here.",
        ),
        option(
            "--precision",
            type=OneOf(PRECISIONS),
            default=_USUAL.options.precision,
            show_default=True,
            help="Precision that engines compute in.",
        ),
        option(
            "--threads",
            type=THREADS,
            default=_USUAL.options.threads,
            show_default=True,
            help="CPU threads of one engine run.",
        ),
        option(
            "--profiles",
            type=PATH,
            default=_USUAL.profiles,
            show_default=True,
            metavar="FOLDER",
            help="Keep measured latencies here, for other networks on this device, too.",
        ),
    ),
    settings_options,
)


def _step(field: str) -> Any:
    """What help says of the default of an option of preprocessing."""
    value = getattr(_STEPS, field)
    return f"{value[0]:g}" if isinstance(value, tuple) else value


_unlabelled_options = section(
    "Images without labels",
    option(
        "--resize",
        callback=read_shape,
        metavar="SIZE",
        help="Resize the shorter side to this, as in 256; or to height and width, as in 48x320.",
    ),
    option("--crop", callback=read_shape, metavar="SIZE", help="Cut out the middle then: 224, or 48x320."),
    option("--scale", type=float, usual=_step("scale"), help="Divide values of 0..255 by this."),
    option("--mean", callback=read_numbers, metavar="R,G,B", usual=_step("mean"), help="Subtract this then."),
    option("--std", callback=read_numbers, metavar="R,G,B", usual=_step("std"), help="Divide by this then."),
    option(
        "--channels", type=OneOf(get_args(Colours)), usual=_step("channels"), help="Order of the network's colours."
    ),
    option("--layout", type=OneOf(get_args(Layout)), usual=_step("layout"), help="Layout of the network's input."),
    option(
        "--distances",
        callback=read_pairs,
        metavar="OUTPUT=KIND,...",
        usual="by what they are",
        help="Compare outputs with the original's as logits, probabilities or error.",
    ),
    option(
        "--metric",
        type=PATH,
        metavar="FILE.py",
        help="Report your own figure: metric(outputs, original_outputs), one number a sample.",
    ),
)
data_options = combined(
    section(
        "Data",
        option(
            "--task",
            type=PATH,
            metavar="TASK",
            help="Python file with a function task() that returns data, loss and metric; or imagefolder:FOLDER, "
            "cifar10:FOLDER, denoise-cifar10:FOLDER; or, without labels, images:FOLDER, images:FILE.py, FILE.npy.",
        ),
        option(
            "--output",
            type=PATH,
            default=DEFAULT_OUTPUT,
            show_default=True,
            metavar="FOLDER",
            help="Keep all files of the job here; the same folder again goes on where it stopped.",
        ),
        option(
            "--calibration",
            type=COUNT,
            default=_USUAL.samples.calibration,
            show_default=True,
            metavar="IMAGES",
            help="Images that a fit is solved on while importance is measured.",
        ),
        option(
            "--held-out",
            type=COUNT,
            default=_USUAL.samples.held_out,
            show_default=True,
            metavar="IMAGES",
            help="Images that losses are measured on; nothing is trained on them.",
        ),
    ),
    _unlabelled_options,
    section(
        "Importance",
        option(
            "--estimator",
            type=OneOf(tuple(estimators())),
            default=DEFAULT_ESTIMATOR,
            show_default=True,
            help="How to measure what a choice costs: "
            + "; ".join(f"{name}, {kind.summary}" for name, kind in estimators().items())
            + ".",
        ),
        *(made for kind in estimators().values() for made in estimator_options(kind)),
    ),
)
plan_options = section(
    "Plan",
    option(
        "--budget",
        metavar="BUDGET",
        usual=_USUAL.budget,
        help="Latency that the result may have: 0.6 of the original's, or 22.3ms.",
    ),
    option("--speedup", type=float, metavar="FACTOR", help="The same as a factor, such as 1.8; instead of --budget."),
    option(
        "--confidence",
        type=float,
        metavar="P",
        help="Meet the budget with at least this probability, such as 0.95, however noisy latencies are.",
    ),
)
refine_options = section(
    "Plan",
    option(
        "--refine",
        type=click.IntRange(0),
        default=_USUAL.refine,
        show_default=True,
        metavar="N",
        help="Build and measure the N best plans, and decide by that; 0 goes by the prediction.",
    ),
)
rebuilds_option = section(
    "Engines",
    option(
        "--rebuilds",
        type=click.IntRange(1),
        default=_USUAL.policy.rebuilds,
        show_default=True,
        metavar="K",
        help="Build one operation of eight, and both final engines, K times: all intervals hold what builds differ by.",
    ),
)
torch_options = section(
    "Where torch computes",
    option(
        "--device",
        default=_USUAL.device,
        show_default=True,
        metavar="DEVICE",
        help="Measure importance, fit and train on this: auto (a GPU, if torch sees one), cpu, cuda, cuda:N.",
    ),
    option(
        "--cpu-threads",
        type=COUNT,
        metavar="N",
        usual="OMP_NUM_THREADS, or all cores",
        help="Cores that this takes; engines are timed with --threads.",
    ),
    option(
        "--memory-limit",
        metavar="SIZE",
        usual="three quarters of what is free",
        help="Most memory for importance and fits, such as 4GiB.",
    ),
)
fleet_option = section(
    "Engines",
    option(
        "--fleet",
        metavar="ADDRESS",
        help="Measure on all machines of a Ray cluster: host and port of its head; or local: the devices of this one.",
    ),
)
also_option = section(
    "Engines",
    option(
        "--also",
        metavar="RUNTIME",
        **suggesting(runtime_names),
        help="Build the result for this as well, such as tensorrt-rtx:sm75; one that runs here is timed, too.",
    ),
)
training_options = section(
    "Training",
    option(
        "--finetune/--no-finetune",
        default=True,
        show_default=True,
        help="Train the compressed network, or fit it only.",
    ),
    option(
        "--recipe",
        metavar="NAME",
        usual="default; no-labels for a task without",
        **suggesting(recipe_names),
        help=f"Train as this says: {', '.join(recipe_names())}, or a FILE.toml; the options below go before it.",
    ),
    option("--epochs", type=int, usual=_RECIPE.epochs, help="Passes over the training data."),
    option("--lr", type=float, usual=_RECIPE.lr, help="Peak learning rate."),
    option("--weight-decay", type=float, usual=_RECIPE.weight_decay, help="L2 penalty on weights."),
    option("--warmup", type=float, usual=_RECIPE.warmup, help="Share of all steps in which the rate rises."),
    option("--distillation", type=float, usual=_RECIPE.distillation, help="Weight of the original's outputs, 0 to 1."),
    option("--temperature", type=float, usual=_RECIPE.temperature, help="Temperature that distillation softens with."),
    option("--clip-norm", type=float, usual="any", help="Longest gradient; longer ones are cut."),
    option(
        "--precision-training",
        type=OneOf(get_args(Precision)),
        usual=_RECIPE.precision,
        help="Precision that training computes in; auto is bf16 on processors that multiply in it.",
    ),
    option(
        "--decouple",
        type=float,
        usual=_RECIPE.decouple,
        help="Share of all steps in which what goes fades away, before anything is merged (ELC).",
    ),
    option("--seed", type=int, usual=_RECIPE.seed, help="Seed of the order of the data."),
    option(
        "--fit-samples",
        type=COUNT,
        default=_USUAL.fit_samples,
        show_default=True,
        metavar="IMAGES",
        help="Images that the fits of the chosen plan are solved on.",
    ),
    option(
        "--accept-worse",
        is_flag=True,
        default=_USUAL.accept_worse,
        help="Deliver a network whose held-out loss is far above what was planned, too.",
    ),
)
