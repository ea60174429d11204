from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.errors import InputError, LayerMergeError, RuntimeNotAvailableError, TaskError, UsageError
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.measuring import importance_table
from trt_layermerge.pipeline.session import block_options, for_method, open_session
from trt_layermerge.planning.methods.base import ChoiceTraits, Method
from trt_layermerge.planning.methods.joint import Joint
from trt_layermerge.planning.methods.layermerge import LayerMerge
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.nvidia.compiler_settings import TensorRtSettings
from trt_layermerge.runtimes.onnxruntime import OnnxRuntimeKind
from trt_layermerge.runtimes.ort.ort_runtime import OnnxRuntime
from trt_layermerge.training.checked_task import CheckedTask
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification


def test_the_papers_know_no_fits_and_ours_no_worse_copies(done: Job) -> None:
    session = open_session(done)
    choices = choices_of(session.network, done.limits)
    papers, ours = for_method(choices, LayerMerge()), session.choices
    assert not any(c.kind is Kind.FIT for c in papers) and any(c.kind is Kind.FIT for c in ours)
    fitted = {(c.block, c.geometry) for c in ours if c.kind is Kind.FIT}
    assert not any((c.block, c.geometry) in fitted for c in ours if c.kind is Kind.MERGE)
    assert {(c.block, c.geometry) for c in ours} == {(c.block, c.geometry) for c in choices}, "no convolution is lost"


def test_the_papers_know_layers_in_a_row_and_no_regions() -> None:
    chain, region = Block(0, 0, 2), Block(0, 0, 2, region=0, end_chain=1, inside=3)
    geometry = Geometry(4, 4, (3, 3), groups=4)
    merges = [Choice(chain, Kind.MERGE, geometry, (1, 2)), Choice(region, Kind.MERGE, geometry)]
    assert for_method(merges, LayerMerge()) == (merges[0],)
    assert for_method(merges, Joint()) == tuple(merges)


@dataclass(frozen=True)
class Newcomer(Method):
    """As someone would add it: nothing but what has to be said."""

    name = "newcomer"
    fits = True
    adds_activations = True

    def admits(self, choice: ChoiceTraits) -> bool:
        return True


def test_a_method_is_given_what_it_admits_whatever_its_name_is(done: Job) -> None:
    choices = choices_of(open_session(done).network, done.limits)
    assert for_method(choices, Newcomer()) == for_method(choices, Joint())


def test_a_job_fails_before_it_begins(tmp_path: Path, quick_job: Any) -> None:
    (tmp_path / "file").write_text("")
    for change in ({"output": tmp_path / "file"}, {"profiles": tmp_path / "file" / "p"}):
        with pytest.raises(InputError, match="is not a folder"):
            open_session(quick_job(tmp_path, **change))
    with pytest.raises(UsageError, match="there is no method 'joined'"):
        open_session(quick_job(tmp_path, method="joined"))
    with pytest.raises(UsageError, match="no task is given"):
        importance_table(open_session(quick_job(tmp_path, task=None, input_shape=(1, 8, 8))))


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="there is an NVIDIA driver here")
def test_a_runtime_that_runs_nothing_here_is_refused_with_all_that_is_missing(tmp_path: Path, quick_job: Any) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(RuntimeNotAvailableError, match="'tensorrt-rtx' cannot run here: there is no NVIDIA driver"):
        open_session(quick_job(tmp_path, runtime="tensorrt-rtx:sm86"))


def test_blocks_are_built_as_the_job_builds_and_amid_the_network_where_the_kind_can(
    tmp_path: Path, quick_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TensorRtSettings(tf32=True, cuda_graph=False)
    job = quick_job(tmp_path, options=BuildOptions(2, batches=(1, 8), settings=settings))
    assert block_options(job, OnnxRuntime()) == BuildOptions(2, isolated=True, settings=settings)
    monkeypatch.setattr(OnnxRuntimeKind, "times_amid_network", False)
    assert not block_options(job, OnnxRuntime()).isolated


@pytest.mark.parametrize("method", ["depth", "layer-only"])
def test_methods_that_add_no_activation_say_so(tmp_path: Path, quick_job: Any, method: str) -> None:
    limits = Limits(bottleneck_activations=True)
    with pytest.raises(UsageError, match=f"method {method} adds no activations"):
        open_session(quick_job(tmp_path, method=method, limits=limits))
    open_session(quick_job(tmp_path, method="layermerge", limits=limits))


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """CIFAR-10 of 24 black images, by its name."""
    folder = tmp_path / "cifar"
    folder.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (folder / f"{name}.bin").write_bytes(bytes(3073) * 4)
    return Path(f"cifar10:{folder}")


COLOURED = """from torch import nn
INPUT_SHAPE = (3, 32, 32)
def model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(3136, 10))
"""


def test_what_the_recipe_says_of_the_data_holds_for_training_alone(tmp_path: Path, quick_job: Any, cifar: Path) -> None:
    """Rows of one table are of one loss, whatever recipe follows, and if none does."""
    (tmp_path / "model.py").write_text(COLOURED)
    job = quick_job(tmp_path, model=str(tmp_path / "model.py"), task=cifar, recipe=None)
    smooth = open_session(replace(job, recipe=Recipe(batch_size=5, label_smoothing=0.1)))
    plain = open_session(job)
    for session, trained in ((plain, (128, 0.0)), (smooth, (5, 0.1))):
        checked = session.require_task(), session.training_task()
        task, training = (one.given for one in checked if isinstance(one, CheckedTask))
        assert isinstance(task, Classification) and isinstance(training, Classification)
        assert (task.batch_size, task.label_smoothing) == (128, 0.0)
        assert (training.batch_size, training.label_smoothing) == trained
    with pytest.raises(TaskError, match="an epoch has 0 steps"):
        open_session(replace(job, recipe=Recipe(batch_size=50)))


def test_a_task_of_a_file_is_trained_on_as_it_is(tmp_path: Path, quick_job: Any) -> None:
    session = open_session(quick_job(tmp_path))
    assert session.training_task() is session.task


def test_a_named_task_takes_its_size_from_the_job(tmp_path: Path, quick_job: Any, cifar: Path) -> None:
    job = quick_job(tmp_path, task=cifar, recipe=Recipe(batch_size=5), input_shape=None)
    with pytest.raises(LayerMergeError, match="channels"):
        open_session(job)  # of another number than the network takes
    with pytest.raises(TaskError, match=r"32x32.*8x8"):
        open_session(replace(job, input_shape=(1, 8, 8)))
