"""The original is compared with its source before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from tests.pipeline.conftest import QuickJob, Recorder
from trt_layermerge.errors import ExitCode, ModelError, ProofError, UsageError
from trt_layermerge.network.inputs import Input, examples
from trt_layermerge.network.network import Network, trace
from trt_layermerge.pipeline.measuring import baseline_stage, importance_stage, profile_stage
from trt_layermerge.pipeline.original import write_original
from trt_layermerge.pipeline.session import Session, open_session


def network(bias: float = 0.0) -> Network:
    torch.manual_seed(0)
    source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    found = trace("net", source, (Input("image", (3, 8, 8)),))
    with torch.no_grad():
        source[3].bias += bias  # as if the normal form were of another network
    return found


def test_it_is_written_where_it_is_right(tmp_path: Path) -> None:
    found, path = network(), tmp_path / "original.onnx"
    write_original(found, examples(found.inputs, 5), path)
    assert [value.name for value in onnx.load(path).graph.input] == ["image"]


@pytest.mark.parametrize("bias", [1e-2, float("nan")])
def test_it_is_not_where_it_differs(tmp_path: Path, bias: float) -> None:
    found, path = network(bias), tmp_path / "original.onnx"
    with pytest.raises(ProofError, match=r"the original as ONNX differs from net by .* nothing was measured") as caught:
        write_original(found, examples(found.inputs, 5), path)
    assert caught.value.exit_code is ExitCode.PROOF_FAILED and not path.exists()


class Fickle(nn.Module):
    """Does something else on inputs of five than on the two that it is traced with."""

    def __init__(self, does: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.does = does

    def forward(self, x: torch.Tensor) -> object:
        return self.does(x)


def _end(_: torch.Tensor) -> object:
    raise SystemExit(0)


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (_end, "cannot run net on real inputs: it ends the process"),
        (lambda x: 1 / 0, r"real inputs: ZeroDivisionError: division by zero \(\S*test_original.py, line \d+\)"),
        (lambda x: (x, x), "returns 2 tensors for real inputs, 1 when it is traced"),
        (lambda x: 3, "returns no tensor alone"),
    ],
)
def test_a_source_that_fails_on_real_inputs_is_told(
    does: Callable[[torch.Tensor], object], said: str, tmp_path: Path
) -> None:
    found, path = network(), tmp_path / "original.onnx"
    with pytest.raises(ModelError, match=said):
        write_original(replace(found, source=Fickle(does)), examples(found.inputs, 5), path)
    assert not path.exists()


@pytest.mark.parametrize("stage", [profile_stage, baseline_stage, importance_stage])
def test_no_stage_measures_before(
    stage: Callable[[Session, Recorder], Any], quick_job: QuickJob, recorder: Recorder, tmp_path: Path
) -> None:
    session = open_session(quick_job(tmp_path))
    other = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    with pytest.raises(ProofError, match="nothing was measured"):
        stage(replace(session, network=replace(session.network, source=other)), recorder)
    assert len(session.profile) == 0 and not recorder.steps and not session.job.baseline_file.exists()


def test_a_task_is_of_one_output(quick_job: QuickJob, tmp_path: Path) -> None:
    path = tmp_path / "two.py"
    path.write_text(
        "from torch import nn\n"
        "class Two(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 10)\n"
        "    def forward(self, x):\n"
        "        y = self.a(x)\n"
        "        return {'scores': self.head(y.mean((2, 3))), 'features': y}\n"
    )
    with pytest.raises(UsageError, match="returns several tensors: which are logits is not known") as caught:
        open_session(replace(quick_job(tmp_path), model=f"{path}:Two"))
    assert "--distillation 0" in str(caught.value)
    assert open_session(replace(quick_job(tmp_path), model=f"{path}:Two", task=None, input_shape=(1, 12, 12))).choices
