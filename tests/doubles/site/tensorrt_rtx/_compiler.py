"""The compiler of the double: targets, and plans with the header and the text of genuine ones (``rtx_plan.py``)."""

from __future__ import annotations

import struct
from typing import Any

import tensorrt
from double_settings import setting
from tensorrt import IHostMemory, INetworkDefinition, _builder, _plan
from tensorrt._enums import _Native


class ComputeCapability(_Native):
    """As in the bindings; a plan has a bit for each that it is for."""

    NONE = 0
    CURRENT = 1
    SM75 = 75
    SM80 = 80
    SM86 = 86
    SM89 = 89
    SM120 = 120
    SM121 = 121


_BITS = ("SM75", "SM80", "SM86", "SM89", "SM120")
_TYPES = {"FP32": "float", "Float": "float", "FP16": "half", "Half": "half", "Int8": "int8"}
_HEADER = struct.Struct("<4sIQQ4B4sI20xQ4s36xQ")


class IBuilderConfig(_builder.IBuilderConfig):
    def __init__(self) -> None:
        super().__init__()
        self.num_compute_capabilities = 1
        self._targets: dict[int, ComputeCapability] = {}

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        self._targets[index] = compute_capability
        return index < self.num_compute_capabilities


class Builder(tensorrt.Builder):
    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        plan = super().build_serialized_network(network, config)
        targets = [target.name for target in config._targets.values()]
        return None if plan is None else IHostMemory(written(bytes(plan), targets))


def written(plan: bytes, targets: list[str]) -> bytes:
    """A plan of TensorRT's double as a plan for targets."""
    found = _plan.read(plan)
    assert found is not None
    program = _program(found[0]["layers"]).encode()
    mask = sum(1 << _BITS.index(target) for target in targets)
    version = [int(part) for part in setting("rtx_version").split(".")]
    size = _HEADER.size + len(program) + 1 + len(plan)
    head = _HEADER.pack(b"vtrt", 0, 2, size, *version, b"vtrt", mask, 7, b"NGNE", 7)
    return head + program + b"\0" + plan


def inner(plan: bytes) -> bytes | None:
    """The plan of TensorRT's double in one of these."""
    begin = plan.find(_plan.MAGIC)
    return plan[begin:] if plan.startswith(b"vtrt") and begin > 0 else None


def _program(layers: list[dict[str, Any]]) -> str:
    """A kernel for each layer, as the genuine text has it; a convolution reads data and weights of its own."""
    lines = []
    for number, layer in enumerate(layers):
        fused = f'layers="[ONNX Layer: {layer["Name"]}]"'
        if layer["LayerType"] != "CaskConvolution":
            name = "Tran" if layer["LayerType"] == "Reformat" else "Elem"
            lines.append(f'  function={{ name=__myl_{name} output_args={{ "out{number}" }} {fused} }}')
            continue
        names = {"data": layer["Inputs"][0]["Format/Datatype"].split()[3], "weights": layer["Weights"]["Type"]}
        for name, kind in names.items():
            known = _TYPES.get(kind, kind.lower())
            lines.append(f'  tensor={{ id={number} name="{name}{number}" shape=1 type={known} }}')
        ends = f'output={{"out{number}" }} input={{"data{number}" "weights{number}" }}'
        lines.append(f'  corrltn={{ name="conv{number}" {ends} {fused} }}')
    return "\n".join(["main {", *lines, "}"])
