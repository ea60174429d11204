"""Runs one job and kills it, with SIGKILL, at one moment after the other; then lets it finish.

Every attempt is a fork of this process, which has imported and traced everything once, as that takes seconds, and
written nothing to the folder. Prints what each attempt left behind.

Usage: ``python killed.py FOLDER``
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from jobs import quick_job

from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.session import open_session

MOMENTS = [("profile", 0), ("profile", 3), ("importance", 2), ("solve", 0)]
MOMENTS += [("fine-tune", 1), ("fine-tune", 9), ("deliver", 0)]


class Killer:
    def __init__(self, stage: str, done: int) -> None:
        self.moment, self.current = (stage, done), ""

    def stage(self, name: str) -> None:
        self.current = name
        self.progress(0, 0, "")

    def progress(self, done: int, total: int, label: str, *, share: float | None = None) -> None:
        if (self.current, done) == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


def attempt(folder: Path, stage: str, done: int) -> int:
    """Signal or exit code of the attempt."""
    child = os.fork()
    if child == 0:
        whole_job(open_session(quick_job(folder)), Killer(stage, done))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def left(folder: Path) -> dict[str, str]:
    """Names and contents of the files that resuming depends on."""
    files = [path for path in folder.rglob("*") if path.suffix in (".jsonl", ".json", ".safetensors")]
    return {path.name: path.read_bytes().hex() for path in files if not path.name.startswith(".")}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    network = open_session(quick_job(folder)).network
    export_onnx(network.module, network.input_shape, folder / "warm.onnx")
    attempts = [(*moment, attempt(folder, *moment), left(folder)) for moment in [*MOMENTS, ("never", 0)]]
    print(json.dumps(attempts))
