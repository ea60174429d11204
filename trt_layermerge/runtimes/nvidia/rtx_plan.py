"""An engine that TensorRT-RTX compiled: which version wrote it, for which devices, and what it computes in.

No library is needed. The format is not documented. What is read here was measured on plans that 1.7.1.116 compiled for
each of its targets, alone and in pairs; all numbers are little-endian. 1.6.1.120 puts its version and
targets in the same places. What is read and is not as measured is refused, never guessed at.

====== ===== =====================================================
offset bytes content
====== ===== =====================================================
0      4     ``vtrt``
4      4     0
8      8     format, 2
16     8     bytes of the whole plan
24     4     version, a byte each: 1, 7, 1, 116
28     4     ``vtrt``
32     4     targets, a bit each: SM75 1, SM80 2, SM86 4, SM89 8, SM120 16
36     20    not read: 0 in what 1.7.1 compiled; 1.6.1 put 12090 at 48
56     8     bytes of the weights
64     4     ``NGNE``, where the engine begins; it repeats the bytes of the weights at 104
====== ===== =====================================================

Further on lies the program as text: ``tensor={ ... name="a" ... type=half }`` for each tensor, then the kernels in
their order. ``corrltn={ name=... input={"data" "weights" ...} }`` is a convolution, ``function={ name=__myl_ConcTran
... }`` a kernel that was generated, named after what it does. ``layers=`` names what of the network is fused in it.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from trt_layermerge.errors import ModelError
from trt_layermerge.files import require_no_pipe
from trt_layermerge.runtimes.base import UNKNOWN_PRECISION

TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120")
"""Compute capabilities that plans are compiled for, in the order of their bits."""

_HEADER = struct.Struct("<4sIQQ4B4sI20xQ4s")
_FORMAT = 2
_WEIGHTS_AGAIN = 104
_LEAST = _WEIGHTS_AGAIN + 8


_TENSOR = re.compile(rb'tensor=\{ [^\n]*? name="([^"]+)"[^\n]*? type=(\w+) ')
_CONVOLUTION = re.compile(rb'corrltn=\{ name="[^"]*" output=\{[^}]*\} input=\{"([^"]+)" "([^"]+)"')
_GENERATED = re.compile(rb"function=\{ name=__myl_(\w+)")
_LAUNCHED = re.compile(
    rb'^ +\w+=\{ name=(?:__myl_)?"?([^" ]+)"?[^\n]*? (?:output|output_args)=\{ ?"([^"]+)"([^\n]*)', re.MULTILINE
)
_LAYER = re.compile(rb"\[ONNX Layer: ([^\]]*)\]")
_MOVES = re.compile(rb"(Move|Tran|Resh|Slic|Conc|Pad)+")
_PRECISIONS = {b"float": "fp32", b"half": "fp16", b"int8": "int8"}


@dataclass(frozen=True)
class PlanHeader:
    """What a plan says of itself.

    Attributes:
        version: Of the library that wrote it, such as ``1.7.1.116``.
        targets: Compute capabilities that it runs on, such as ``("sm75",)``.
    """

    version: str
    targets: tuple[str, ...]


def read_header(path: Path) -> PlanHeader:
    """Read the header of a plan.

    Raises:
        ModelError: The file cannot be read, is no plan of TensorRT-RTX, or is damaged.
    """
    try:
        require_no_pipe(path)
        size = path.stat().st_size
        with open(path, "rb") as file:
            head = file.read(_LEAST)
    except OSError as error:
        raise ModelError(f"cannot read the engine {path}: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path} {error}") from error
    if fault := _fault(head, size):
        raise ModelError(
            f"{path} is not an engine as TensorRT-RTX writes it: {fault}",
            hint="build it again: trt-layermerge build MODEL.onnx --runtime tensorrt-rtx",
        )
    _, _, _, _, *version, _, mask, _, _ = _HEADER.unpack_from(head)
    return PlanHeader(".".join(map(str, version)), _targets(mask))


def convolution_precisions(plan: bytes) -> frozenset[str]:
    """What a plan's convolutions are computed in: the types of the data and the weights that they read, by name.

    Weights that are stored in INT8 and dequantised by a kernel before the convolution are floats to it.
    """
    types = {name: _PRECISIONS.get(kind, kind.decode()) for name, kind in _TENSOR.findall(plan)}
    found = set()
    for pair in _CONVOLUTION.findall(plan):
        read = {types[name] for operand in pair if (name := operand.partition(b"^")[0]) in types}
        found.add(" times ".join(sorted(read)) or UNKNOWN_PRECISION)
    return frozenset(found)


@dataclass(frozen=True)
class PlanKernel:
    """One kernel that a run of a plan launches.

    Attributes:
        name: Of the convolution that it computes, or after what it does: ``TranMean``.
        convolution: Whether it is one.
        type: Of what it writes, such as ``fp16``, or in the plan's own words.
        fused: Names of the nodes of the ONNX graph that it computes, or computes a part of.
    """

    name: str
    convolution: bool
    type: str
    fused: tuple[str, ...]


def kernels(plan: bytes) -> tuple[PlanKernel, ...]:
    """What a run of a plan launches, in order."""
    types = {name: _PRECISIONS.get(kind, kind.decode()) for name, kind in _TENSOR.findall(plan)}
    found = []
    for match in _LAUNCHED.finditer(plan):
        name, written, rest = match.groups()
        if b"layers=" not in rest:  # memory, tensors
            continue
        fused = tuple(layer.decode(errors="replace") for layer in _LAYER.findall(rest.partition(b"layers=")[2]))
        convolution = match[0].lstrip().startswith(b"corrltn=")
        kind = types.get(written.partition(b"^")[0], UNKNOWN_PRECISION)
        found.append(PlanKernel(name.decode(errors="replace"), convolution, kind, fused))
    return tuple(found)


def moving_kernels(plan: bytes) -> tuple[str, ...]:
    """The kernels of a plan that only move a tensor into another memory layout."""
    return tuple(name.decode() for name in _GENERATED.findall(plan) if _MOVES.fullmatch(name))


def _fault(head: bytes, size: int) -> str | None:
    """What is wrong with the first bytes of a file of this size."""
    if len(head) < _LEAST:
        return f"it has {size} bytes"
    begins, zero, form, length, _, _, _, _, again, mask, weights, engine = _HEADER.unpack_from(head)
    if (begins, again, engine) != (b"vtrt", b"vtrt", b"NGNE"):
        return "its marks are missing"
    if zero or form != _FORMAT:
        return f"its format is not {_FORMAT}"
    if length != size:
        return f"it says that it has {length} bytes, and has {size}"
    if weights != int.from_bytes(head[_WEIGHTS_AGAIN:], "little"):
        return "it contradicts itself on the size of its weights"
    if not mask or mask >> len(TARGETS):
        return f"its targets, {mask:#x}, are not known"
    return None


def _targets(mask: int) -> tuple[str, ...]:
    return tuple(target for bit, target in enumerate(TARGETS) if mask >> bit & 1)
