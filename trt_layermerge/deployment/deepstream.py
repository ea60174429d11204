"""A configuration of DeepStream's ``nvinfer`` element: the engine, its inputs, and raw outputs for a parser.

Keys are those of the ``Gst-nvinfer`` file format in DeepStream's documentation. What a detector's outputs mean no
engine says, so they are attached as tensors; how to name a parser of boxes is in the file, commented out.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from trt_layermerge.deployment.base import Delivered, DeploymentKind, refuse_runtime
from trt_layermerge.errors import UsageError
from trt_layermerge.files import write_bytes

_NETWORK_MODES = {"fp32": 0, "int8": 1, "fp16": 2}


class DeepStream(DeploymentKind):
    """For engines of TensorRT with one image for an input."""

    name: ClassVar[str] = "deepstream"
    purpose: ClassVar[str] = "a configuration of DeepStream's nvinfer"

    def write(self, delivered: Delivered, name: str, folder: Path) -> tuple[Path, ...]:
        """Write ``NAME.nvinfer.txt`` and the engine beside it."""
        if not delivered.kind.deepstream:
            raise refuse_runtime(delivered, "DeepStream", "tensorrt")
        text = _config(delivered, f"{name}.engine")
        folder.mkdir(parents=True, exist_ok=True)
        config, engine = folder / f"{name}.nvinfer.txt", folder / f"{name}.engine"
        shutil.copyfile(delivered.engine, engine)
        write_bytes(config, text.encode())
        return config, engine


def _config(delivered: Delivered, engine: str) -> str:
    images = [port for port in delivered.inputs if len(port.shape) == 4 and port.shape[1] in (1, 3)]
    if len(delivered.inputs) != 1 or not images:
        shapes = ", ".join(f"{port.name} {list(port.shape)}" for port in delivered.inputs)
        raise UsageError(f"nvinfer feeds one image [batch, channels, height, width] of 1 or 3 channels; here: {shapes}")
    image, outputs = images[0], ";".join(port.name for port in delivered.outputs)
    classifies = len(delivered.outputs) == 1 and len(delivered.outputs[0].shape) == 2
    return f"""# What the network was trained with; nvinfer computes net-scale-factor * (pixel - offset), pixels 0..255.
# Of images divided by 255, less a mean and over a deviation: offsets = 255 * mean, net-scale-factor = 1 / (255 * std).
[property]
gpu-id=0
gie-unique-id=1
model-engine-file={engine}
batch-size={delivered.batches[1]}
network-mode={_NETWORK_MODES[delivered.device.precision]}
infer-dims={";".join(map(str, image.shape[1:]))}
input-blob-name={image.name}
output-blob-names={outputs}
model-color-format={2 if image.shape[1] == 1 else 0}
net-scale-factor={1 / 255:.10f}
# offsets=0;0;0
# 1 is a classifier, 0 a detector, 100 anything else, its outputs attached to frames as NvDsInferTensorMeta.
network-type={1 if classifies else 100}
output-tensor-meta=1
# A detector with a parser of its own:
# network-type=0
# num-detected-classes=80
# parse-bbox-func-name=NvDsInferParseCustom
# custom-lib-path=libparser.so
# cluster-mode=2
"""
