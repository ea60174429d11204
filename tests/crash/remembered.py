"""What is computed between two writes of nothing but its arguments, is computed once and remembered: for kills alone.

torch's exporter, its tracing and the pictures of a report take nine tenths of a command's time on a network of seconds,
write nothing, and are no business of a harness that asks what kills leave. Each result is kept under a hash of all that
it is made of; what a run resumes wrongly has another hash and is computed. Kept files lie beside the folder that is
watched, so that the write points of a command are what they are without this.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from torch import fx, nn

from trt_layermerge.delivery import export
from trt_layermerge.network import network
from trt_layermerge.network.inputs import Input
from trt_layermerge.network.outputs import output_names
from trt_layermerge.report import pictures as drawing


def remember(folder: Path) -> None:
    """Have this process and its forks remember, in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    real_program, real_pictures = export._program, drawing.pictures_of

    def program(module: nn.Module, inputs: Sequence[Input]) -> _Written:
        kept = folder / f"{_hash(_content(module), list(output_names(module)), inputs)}.onnx"
        return _Written(_kept(kept, lambda path: real_program(module, inputs).save(path, external_data=False)))

    def pictures(*given: Any) -> dict[str, Markup]:
        def make(path: Path) -> None:
            path.write_text(json.dumps(real_pictures(*given)))

        found = json.loads(_kept(folder / f"{_hash(given)}.json", make))
        return {name: Markup(text) for name, text in found.items()}

    export._program, drawing.pictures_of = program, pictures  # type: ignore[assignment]
    network.normal_form = _once_for_each_fork(network.normal_form)


class _Written:
    """What torch's exporter returns, as far as it is used."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def save(self, path: Path, *, external_data: bool) -> None:
        assert not external_data
        path.write_bytes(self._content)


def _once_for_each_fork(normal_form: Callable[..., fx.GraphModule]) -> Callable[..., fx.GraphModule]:
    """The first one of each fork is its parent's: nobody else ever had it, so that it is as new."""
    parent, made = os.getpid(), dict[str, fx.GraphModule]()

    def remembered(source: nn.Module, given: Any) -> fx.GraphModule:
        key = _hash(_content(source), given)
        if os.getpid() == parent and key not in made:
            made[key] = normal_form(source, given)
        elif os.getpid() != parent and key in made:
            return made.pop(key)
        return normal_form(source, given)

    return remembered


def _content(module: nn.Module) -> list[object]:
    """All that a module computes with."""
    values = [*module.named_parameters(), *module.named_buffers()]
    code = module.code if isinstance(module, fx.GraphModule) else type(module)
    return [code, repr(module), [(name, value.dtype, value.detach().numpy().tobytes()) for name, value in values]]


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _kept(path: Path, make: Callable[[Path], None]) -> bytes:
    """What a file holds, which is made where there is none; by a rename, for its maker may be killed meanwhile."""
    if not path.exists():
        new = path.with_name(f"{os.getpid()}{path.suffix}")
        make(new)
        new.rename(path)
    return path.read_bytes()
