"""A whole job in two processes: one does it, the other shares its training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trt_layermerge.delivery.verification import verify_delivery

MEMBER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from conftest import Recorder
from jobs import quick_job
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.pipeline.training import leads, share_training
from trt_layermerge.training.recipe import Recipe

recorder = Recorder()
recipe = Recipe(epochs=1, decouple=float(sys.argv[3]), distillation=0.5)
session = open_session(quick_job(Path(sys.argv[2]), method="layermerge", recipe=recipe))
if leads(session):
    whole_job(session, recorder)
else:
    share_training(session)
assert not leads(session) or recorder.steps.count(("fine-tune", 16, 16)) == 1, recorder.steps
"""


@pytest.mark.parametrize("decouple", [0.0, 0.5])
def test_two_processes_do_one_job(tmp_path: Path, decouple: float) -> None:
    pytest.importorskip("accelerate")
    here, script = Path(__file__).parent, tmp_path / "member.py"
    script.write_text(MEMBER.replace("sys.argv[1])", f"sys.argv[1])\nsys.path.insert(0, {str(here)!r})", 1))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    done = subprocess.run(
        [sys.executable, *command, str(here / "assets"), str(tmp_path), str(decouple)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert verify_delivery(tmp_path / "out" / "manifest.json").samples == 64
