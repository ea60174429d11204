from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from trt_layermerge.blocks.limits import Limits
from trt_layermerge.cli.commands import inspect
from trt_layermerge.cli.config_file import config_option
from trt_layermerge.cli.options import (
    also_option,
    data_options,
    device_options,
    network_options,
    plan_options,
    refine_options,
    settings_of,
    torch_options,
    training_options,
)
from trt_layermerge.cli.sections import SectionedCommand, combined
from trt_layermerge.errors import ExitCode, RuntimeNotAvailableError, UsageError
from trt_layermerge.importance.estimators.base import Samples
from trt_layermerge.importance.estimators.finetune import Finetune
from trt_layermerge.importance.estimators.gates import Gates
from trt_layermerge.importance.filling import Estimation
from trt_layermerge.pipeline import settings
from trt_layermerge.pipeline.job import Job
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.methods.depth import Depth
from trt_layermerge.runtimes.builder_settings import BuilderSettings
from trt_layermerge.runtimes.nvidia.compiler_settings import GpuSettings, TensorRtSettings
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.recipes import read_recipe

ALL = (network_options, device_options, data_options, plan_options, training_options, config_option)


def job_of(*arguments: str, options: Any = ALL) -> Job:
    """The job that a command with these arguments would do."""
    made: list[Job] = []
    command = click.command(cls=SectionedCommand)(
        combined(*options)(lambda **given: made.append(settings.job_of(**settings_of(given))))
    )
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return made[0]


@pytest.fixture
def config(tmp_path: Path) -> Any:
    def write(text: str) -> str:
        (tmp_path / "c.toml").write_text(text)
        return str(tmp_path / "c.toml")

    return write


def test_without_options_a_job_has_its_own_defaults() -> None:
    assert job_of("m.py") == Job(model="m.py", output=Path("engines/job"))


def test_builder_settings_are_those_of_the_runtimes_kind(config: Any) -> None:
    given = ["--runtime", "tensorrt", "--workspace", "64", "--tf32", "--no-cuda-graph", "--build-timeout", "30"]
    told = job_of("m", *given).options.settings
    assert told == TensorRtSettings(workspace_mib=64, tf32=True, build_seconds=30.0, cuda_graph=False)
    assert job_of("m", "--config", config('runtime = "tensorrt"\nlock_clocks = 1350')).options.settings == (
        TensorRtSettings(lock_clocks_mhz=1350)
    )
    assert job_of("m", "--cuda-graph").options.settings == BuilderSettings(), "what is the default says nothing"
    with pytest.raises(UsageError, match="--workspace is for tensorrt and tensorrt-rtx, and the runtime is onnxrun"):
        job_of("m", "--workspace", "64")
    with pytest.raises(UsageError, match="--timing-cache is for tensorrt, and the runtime is torch:cpu"):
        job_of("m", "--runtime", "torch:cpu", "--timing-cache", "file")
    assert job_of("m", "--runtime", "torch", "--no-cuda-graph").options.settings == GpuSettings(cuda_graph=False)
    with pytest.raises(click.BadParameter):
        job_of("m", "--runtime", "tensorrt", "--optimization-level", "6")


def test_another_runtime_has_to_have_the_precision() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install '.[tensorrt-rtx]'")
    with pytest.raises(RuntimeNotAvailableError, match="sm75' has no int8"):
        job_of("m", "--precision", "int8", "--also", "tensorrt-rtx:sm75", options=(*ALL, also_option))
    assert job_of("m", "--precision", "int8", "--also", "tensorrt-rtx:sm86", options=(*ALL, also_option)).also


def test_where_torch_computes(config: Any) -> None:
    options = (*ALL, torch_options)
    assert job_of("m", options=options).device == "auto"
    assert job_of("m", "--device", "cuda:1", options=options).device == "cuda:1"
    assert job_of("m", "--config", config('device = "cpu"'), options=options).device == "cpu"
    assert job_of("m", "--config", config('device = "cpu"')).device == "auto", "a stage in which torch computes nothing"


def test_activations_at_bottlenecks_are_asked_for(config: Any) -> None:
    assert job_of("m.py", "--bottleneck-activations").limits == Limits(bottleneck_activations=True)
    path = config('model = "m.py"\nbottleneck-activations = true\n')
    assert job_of("--config", path).limits.bottleneck_activations
    assert not job_of("--config", path, "--no-bottleneck-activations").limits.bottleneck_activations


def test_a_file_says_what_the_command_line_does_not(config: Any) -> None:
    path = config(
        'model = "m.py:net"\ninput = "3x8x9"\nbudget = 0.5\nepochs = 7\nfinetune = true\ntask = "t.py"\n'
        "held-out = 5\nheld_out = 6\nlr = 1e-3\nthreads = 2\n"
    )
    job = job_of("--config", path, "--epochs", "3")
    assert (job.model, job.input_shape, job.budget) == ("m.py:net", (3, 8, 9), Budget.parse("0.5"))
    assert job.recipe is not None and (job.recipe.epochs, job.recipe.lr) == (3, 1e-3)
    assert (job.task, job.samples.held_out, job.options.threads) == (Path("t.py"), 6, 2)
    assert job_of("other.py", "--config", path, "--no-finetune").recipe is None
    assert job_of("other.py", "--config", path).model == "other.py"
    assert job_of("--config", config('model = "m"\nfinetune = false')).recipe is None


def test_a_recipe_is_named_and_options_go_before_it(config: Any, tmp_path: Path) -> None:
    paper = read_recipe("resnet34-imagenet")
    assert job_of("m", "--recipe", "resnet34-imagenet").recipe == paper
    assert job_of("m", "--config", config('recipe = "resnet34-imagenet"')).recipe == paper
    job = job_of("m", "--recipe", "resnet34-imagenet", "--epochs", "3", "--distillation", "0", "--decouple", "0.4")
    assert job.recipe == replace(paper, epochs=3, distillation=0.0, decouple=0.4)
    assert job_of("m", "--recipe", "ddpm-cifar10", "--epochs", "1").recipe.steps is None
    (tmp_path / "mine.toml").write_text("lr = 0.5\naccumulation = 4")
    assert job_of("m", "--recipe", str(tmp_path / "mine.toml")).recipe == Recipe(lr=0.5, accumulation=4)
    with pytest.raises(UsageError, match="there is no recipe 'resnet34'"):
        job_of("m", "--recipe", "resnet34")


def test_the_estimator_and_its_options() -> None:
    job = job_of("m", "--estimator", "finetune", "--tuning-share", "0.5", "--tuning-lr", "0.2", "--max-kernel", "5")
    assert job.estimation == Estimation(Finetune(share=0.5, lr=0.2), Samples(), 5)
    clipped = job_of("m", "--estimator", "finetune", "--tuning-clip-norm", "5")
    assert clipped.estimator == Finetune(clip_norm=5.0) and "clip norm 5" in clipped.estimator.in_words
    job = job_of("m", "--estimator", "gates", "--gates-penalty", "0.3", "--gates-epochs", "2", "--gates-seed", "7")
    assert job.estimation == Estimation(Gates(penalty=0.3, epochs=2, seed=7))
    for option in ("--tuning-share", "--gates-share"):
        with pytest.raises(UsageError, match="share is 2"):
            job_of("m", option, "2")


@pytest.mark.parametrize("name", ["output", "profiles", "weights", "task", "metric", "recipe", "device"])
def test_an_empty_setting_is_none(config: Any, name: str) -> None:
    """As a path, it was the folder that the process is in."""
    with pytest.raises(UsageError, match=rf"c\.toml: {name} is empty"):
        job_of("m", "--config", config(f'{name} = ""'))
    with pytest.raises(UsageError, match=f"the setting '{name}' is empty"):
        settings.job_of("m", **{name: ""})


def test_settings_of_the_method_are_options(config: Any) -> None:
    job = job_of("m", "--method", "depth", "--alpha", "0.5")
    assert job.planner == Depth(alpha=0.5)
    assert job_of("m", "--config", config('method = "depth"\nalpha = 0.5')) == job
    assert job_of("m", "--method", "depth").planner == Depth()
    assert CliRunner().invoke(inspect.command, ["--help"]).output.count("--alpha") == 1


def test_a_stage_takes_what_it_has_from_the_file_of_a_job(config: Any) -> None:
    path = config('model = "m"\nepochs = 7\nbudget = 0.5\nbatch = 3')
    job = job_of("--config", path, options=(network_options, config_option))
    assert job.batch == 3 and job.recipe is None


@pytest.mark.parametrize(
    ("key", "hint"), [("epoch", "epochs"), ("held_ot", "held_out"), ("as_json", None), ("input_shape", None)]
)
def test_an_unknown_key_is_refused_with_a_near_one(config: Any, key: str, hint: str | None) -> None:
    with pytest.raises(UsageError, match=f"there is no option '{key}'") as caught:
        job_of("m", "--config", config(f"{key} = 1"))
    assert caught.value.exit_code is ExitCode.USAGE
    assert hint is None or f"did you mean '{hint}'" in str(caught.value)


@pytest.mark.parametrize("text", ["[section]\nlr = 1", "task = [1]", "lr = 2026-01-01"])
def test_a_value_that_is_no_value_is_refused(config: Any, text: str) -> None:
    with pytest.raises(UsageError):
        job_of("m", "--config", config(text))


@pytest.mark.parametrize("text", ["epochs = 2.5", 'batch = "many"', "batch = 0", "batch = true", 'input = "3,8"'])
def test_a_value_of_another_kind_is_refused_as_on_the_command_line(config: Any, text: str) -> None:
    with pytest.raises(click.BadParameter):
        job_of("m", "--config", config(text))


def test_a_file_that_is_none_is_refused(config: Any, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (config("= ="), str(tmp_path / "none"), str(tmp_path), str(tmp_path / "binary")):
        with pytest.raises(UsageError, match="cannot read the configuration"):
            job_of("m", "--config", path)


REFINE = (*ALL, refine_options)


def test_a_plan_is_sure_or_measured_not_both(config: Any) -> None:
    assert job_of("m", "--confidence", "0.9").confidence == 0.9
    assert job_of("m", "--refine", "4", options=REFINE).refine == 4
    assert job_of("m", "--config", config("refine = 4\nconfidence = 0.9")).confidence == 0.9, "a stage without --refine"
    with pytest.raises(UsageError, match="pass one of them"):
        job_of("m", "--refine", "4", "--confidence", "0.9", options=REFINE)
    for confidence in ("0", "1", "1.5", "nan"):
        with pytest.raises(UsageError, match="a confidence of"):
            job_of("m", f"--confidence={confidence}")


def test_budget_and_speedup_are_the_same_thing(config: Any) -> None:
    assert job_of("m", "--speedup", "1.8").budget == Budget.parse("1.8x")
    with pytest.raises(UsageError, match="say the same thing"):
        job_of("m", "--speedup", "1.8", "--budget", "0.5")
    with pytest.raises(UsageError, match="say the same thing"):
        job_of("m", "--config", config("budget = 0.5\nspeedup = 2"))
    assert job_of("m", "--config", config("budget = 0.5"), "--speedup", "2").budget == Budget.parse("2.0x")
    assert job_of("m", "--config", config("speedup = 2"), "--budget", "0.5").budget == Budget.parse("0.5")


@pytest.mark.parametrize("shape", ["3x8x", "3xx8", "x", "0x8x8", "-1x8x8", "3,8,8", "9" * 5000])
def test_a_shape_is_written_with_an_x(shape: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a shape like 3x224x224"):
        job_of("m", "--input", shape)
