"""A model repository of NVIDIA's Triton Inference Server: ``NAME/config.pbtxt`` and ``NAME/1/`` with the engine.

The format is that of ``model_config.proto`` in Triton's documentation of model configurations.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

from trt_layermerge.deployment.base import OPEN, Delivered, DeploymentKind, Port, refuse_runtime
from trt_layermerge.errors import UsageError
from trt_layermerge.files import write_bytes

_TYPES = {
    "BOOL": "TYPE_BOOL", "UINT8": "TYPE_UINT8", "UINT16": "TYPE_UINT16", "UINT32": "TYPE_UINT32",
    "UINT64": "TYPE_UINT64", "INT8": "TYPE_INT8", "INT16": "TYPE_INT16", "INT32": "TYPE_INT32", "INT64": "TYPE_INT64",
    "FLOAT16": "TYPE_FP16", "FLOAT": "TYPE_FP32", "DOUBLE": "TYPE_FP64", "STRING": "TYPE_STRING",
    "BFLOAT16": "TYPE_BF16",
}  # fmt: skip
"""Triton's names of ONNX's element types."""

CONFIG = "config.pbtxt"


class Triton(DeploymentKind):
    """Batches are put together by the server where the engine takes every batch; else a request is one."""

    name: ClassVar[str] = "triton"
    purpose: ClassVar[str] = "a model repository of the Triton Inference Server"

    def write(self, delivered: Delivered, name: str, folder: Path) -> tuple[Path, ...]:
        """Write ``NAME/config.pbtxt`` and ``NAME/1/model.plan`` or ``model.onnx``."""
        backend = delivered.kind.triton
        if backend is None:
            raise refuse_runtime(delivered, "Triton", "tensorrt, onnxruntime or onnxruntime-cuda")
        model, config = folder / name / "1" / backend.file, folder / name / CONFIG
        text = _config(delivered, name, backend.name)
        model.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(delivered.engine, model)
        write_bytes(config, text.encode())
        return config, model


def _config(delivered: Delivered, name: str, backend: str) -> str:
    lines = [f"name: {_text(name)}", f"backend: {_text(backend)}"]
    lines.append(f"max_batch_size: {delivered.batches[1] if delivered.any_batch else 0}")
    for what, ports in (("input", delivered.inputs), ("output", delivered.outputs)):
        lines += [_tensor(what, port, delivered) for port in ports]
    lines.append(f"instance_group {{ kind: {'KIND_GPU' if delivered.on_gpu else 'KIND_CPU'} count: 1 }}")
    if delivered.any_batch:
        lines.append("dynamic_batching { }")
    if not delivered.on_gpu:
        threads = _text(str(delivered.device.threads))
        lines.append(f'parameters {{ key: "intra_op_thread_count" value: {{ string_value: {threads} }} }}')
    return "\n".join(lines) + "\n"


def _tensor(what: str, port: Port, delivered: Delivered) -> str:
    shape = delivered.shape(port)[1:] if delivered.any_batch else delivered.shape(port)
    if port.onnx not in _TYPES:
        raise UsageError(f"{what} {port.name!r} is of type {port.onnx}, which Triton has no name for")
    dims = ", ".join(map(str, shape)) or str(OPEN)
    return f"{what} {{ name: {_text(port.name)} data_type: {_TYPES[port.onnx]} dims: [ {dims} ] }}"


def _text(value: str) -> str:
    """A string of protobuf's text format; JSON's escapes are among its own, but for those of surrogates."""
    return json.dumps(value, ensure_ascii=False)
