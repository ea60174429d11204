"""Headers of real plans: the first 112 bytes of a 3x3 convolution, compiled by 1.7.1.116 and by 1.6.1.120."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trt_layermerge.errors import ModelError
from trt_layermerge.runtimes.base import UNKNOWN_PRECISION
from trt_layermerge.runtimes.nvidia.rtx_plan import (
    PlanHeader,
    PlanKernel,
    convolution_precisions,
    kernels,
    moving_kernels,
    read_header,
)

HEADS = json.loads((Path(__file__).parent / "assets" / "rtx_plan_heads.json").read_text())
READ = [*range(36), *range(56, 68), *range(104, 112)]
"""Offsets of the bytes that are read."""


def plan(folder: Path, head: bytes) -> Path:
    """A plan as long as its header says, with nothing behind that."""
    path = folder / "plan"
    path.write_bytes(head)
    with open(path, "r+b") as file:
        file.truncate(int.from_bytes(bytes.fromhex(HEADS[0]["head"])[16:24], "little"))
    return path


@pytest.mark.parametrize("known", HEADS, ids=lambda known: f"{known['version']} {'+'.join(known['targets'])}")
def test_reads_version_and_targets(known, tmp_path) -> None:
    head = bytes.fromhex(known["head"])
    path = tmp_path / "plan"
    path.write_bytes(head)
    with open(path, "r+b") as file:
        file.truncate(int.from_bytes(head[16:24], "little"))
    assert read_header(path) == PlanHeader(known["version"], tuple(known["targets"]))


PROGRAM = b"""\x00descriptors {
  tensor={ alignment=128 dims={ 16 16 3 3 } name="w" offset=1 strides={ 1 1 } type=half }
  tensor={ alignment=2 dims={ 2 4 28 28 } name="x" tile_size={ 1 4 } type=half user_dims={ 2 3 28 28 } }
  tensor={ dims={ 16 16 3 3 } name="w8" type=int8 }
  tensor={ dims={ 16 16 3 3 } name="wide" type=float }
main {
  function={ name=__myl_CastMulCast fqn=__myl_CastMulCast_0xf1 args={ "w8" "wide" } }
  function={ name=__myl_ConcTran fqn=__myl_ConcTran_0xc3 args={ "x" } layers="[ONNX Layer: a]
[ONNX Layer: b]" }
  corrltn={ name="first" output={"c" } input={"x" "w" "one" } stream=0 }
  corrltn={ name="second" output={"d" } input={"unknown^deref" "wide" } stream=0 }
\x00"""


def test_reads_what_convolutions_compute_in_off_the_text() -> None:
    assert convolution_precisions(PROGRAM) == {"fp16", "fp32"}
    assert convolution_precisions(PROGRAM.replace(b'"x" "w" "one"', b'"x" "w8" "one"')) == {"fp16 times int8", "fp32"}
    assert convolution_precisions(b"") == frozenset()
    renamed = PROGRAM.replace(b"tensor={", b"value={")
    assert convolution_precisions(renamed) == {UNKNOWN_PRECISION}, "another format of the text is no excuse"


def test_a_kernel_that_only_moves_a_tensor_is_told_by_its_name() -> None:
    assert moving_kernels(PROGRAM) == ("ConcTran",)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.sampled_from(READ), change=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_shows(offset, change, tmp_path) -> None:
    head = bytearray.fromhex(HEADS[0]["head"])
    head[offset] ^= change
    try:
        assert read_header(plan(tmp_path, bytes(head))) != PlanHeader("1.7.1.116", ("sm75",))
    except ModelError as error:
        assert str(tmp_path / "plan") in error.message and error.hint


@pytest.mark.parametrize("content", [b"", b"vtrt", b"not a plan" * 20, b"\0" * 200])
def test_what_is_no_plan_is_refused(content, tmp_path) -> None:
    (tmp_path / "plan").write_bytes(content)
    with pytest.raises(ModelError, match="is not an engine"):
        read_header(tmp_path / "plan")


def test_a_plan_that_was_cut_off_says_so(tmp_path) -> None:
    (tmp_path / "plan").write_bytes(bytes.fromhex(HEADS[0]["head"]) + bytes(1000))
    with pytest.raises(ModelError, match="267516 bytes, and has 1112"):
        read_header(tmp_path / "plan")


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_what_cannot_be_read_is_refused(name, tmp_path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        read_header(tmp_path / name)


TEXT = b"""
  tensor={ alignment=32 dims={ 2 4 } name="x.1" offset=0 type=float }
  tensor={ alignment=32 dims={ 2 4 } name="y.1" offset=0 type=half }
main {
  function={ name=__myl_ConcMove fqn=__myl_ConcMove_0x7a args={ "x.1" } output_args={ "y.1" } layers="[ONNX Layer: a]" }
  corrltn={ name="fc/conv" output={"x.1^deref" } input={"y.1" "w" } stream=0 layers="[ONNX Layer: b][ONNX Layer: c]" }
  region = { name=devmem size=8196096 }
}
"""


def test_kernels_are_those_that_are_launched_with_what_they_write_and_fuse() -> None:
    assert kernels(TEXT) == (
        PlanKernel("ConcMove", False, "fp16", ("a",)),
        PlanKernel("fc/conv", True, "fp32", ("b", "c")),
    )
    assert kernels(b"no program") == ()
