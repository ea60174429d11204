"""A few lines of Python that load the engine and run it once, for whoever has only its runtime's library."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from trt_layermerge.deployment.base import Delivered, DeploymentKind, refuse_runtime
from trt_layermerge.files import write_bytes


class PythonSnippet(DeploymentKind):
    """The runtime's own words; nothing of this package is needed."""

    name: ClassVar[str] = "python"
    purpose: ClassVar[str] = "a few lines of Python that load and run it"

    def write(self, delivered: Delivered, name: str, folder: Path) -> tuple[Path, ...]:
        """Write ``NAME.py`` and the engine beside it."""
        engine = folder / f"{name}{delivered.kind.suffix}"
        arrays = {port.name: (port.shape, port.numpy) for port in delivered.inputs}
        lines = delivered.kind.python_lines(engine.name, arrays, delivered.device)
        if lines is None:
            raise refuse_runtime(delivered, "Python without this package", "tensorrt, onnxruntime or onnxruntime-cuda")
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / f"{name}.py"
        shutil.copyfile(delivered.engine, engine)
        about = f'"""Runs {name}, for {delivered.device.name}, by {delivered.device.runtime_version}."""'
        write_bytes(script, "\n".join([about.replace("\\", ""), "", *lines, ""]).encode())
        return script, engine
