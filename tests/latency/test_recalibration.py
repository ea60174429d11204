from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trt_layermerge.blocks.gap_signature import AnySignature, GapSignature
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import InputError, TableError
from trt_layermerge.latency.profile import Profile, ProfileKey, ProfileRow
from trt_layermerge.latency.recalibration import plain_convolution, read_measured
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.runtimes.base import Device

DEVICE = Device("NVIDIA GeForce RTX 2080 Ti", "tensorrt", "11.4.0.106", "580.1", "fp32", 1, "CUDA events", "locked")
PLAIN = Signature(64, (16, 28, 28), Geometry(16, 32, (3, 5), (2, 1), (1, 2, 1, 2), groups=2), activation="relu")
TIMING = Timing(341_000, 339_500, 343_210, 330_001, 360_002, 0.0213, 31)
TABLE = "in_channels,out_channels,kernel,stride,padding,groups,height,width,batch,precision,latency_ms"


def _profile(path: Path, device: Device, *rows: ProfileRow) -> Path:
    profile = Profile.open(path, ProfileKey.of(device))
    for row in rows:
        profile.add(row)
    return path


def test_convolutions_of_a_profile_are_its_measurements(tmp_path: Path) -> None:
    rows = [
        ProfileRow(PLAIN, TIMING),
        ProfileRow(replace(PLAIN, residual=True), TIMING),
        ProfileRow(replace(PLAIN, convolution=None), TIMING),
        ProfileRow(replace(PLAIN, batch=32), None, "failed", "no memory"),
    ]
    found = read_measured(_profile(tmp_path / "p.jsonl", DEVICE, *rows))
    (workload,) = found.workloads
    assert workload == plain_convolution(PLAIN) and found.latency_ms == pytest.approx([0.341])
    assert (found.library, found.timing) == ("tensorrt-11.4.0.106", "engine")
    assert (workload.kernel, workload.stride, workload.padding, workload.groups) == ((3, 5), (2, 1), (1, 2, 1, 2), 2)
    assert workload.output_size == PLAIN.output_shape[1:]


@pytest.mark.parametrize(
    "signature",
    [
        replace(PLAIN, convolution=None),
        replace(PLAIN, pooling=True),
        replace(PLAIN, residual=True),
        replace(PLAIN, shift=True),
        replace(PLAIN, group_norm=4),
        replace(PLAIN, precision="fp16"),
        GapSignature(64, (16, 28, 28), (16, 28, 28), "0123456789abcdef"),
    ],
)
def test_what_is_more_than_a_convolution_is_left_out(signature: AnySignature) -> None:
    assert plain_convolution(signature) is None


@pytest.mark.parametrize(
    ("device", "words"),
    [(replace(DEVICE, simulated=True), "simulated"), (replace(DEVICE, runtime="onnxruntime"), "onnxruntime")],
)
def test_what_was_not_measured_in_tensorrt_is_refused(device: Device, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read_measured(_profile(tmp_path / "p.jsonl", device, ProfileRow(PLAIN, TIMING)))


def test_a_profile_of_tensorrt_rtx_has_no_fft(tmp_path: Path) -> None:
    device = replace(DEVICE, runtime="tensorrt-rtx:sm75", runtime_version="1.7.1")
    assert read_measured(_profile(tmp_path / "p.jsonl", device, ProfileRow(PLAIN, TIMING))).library == "tensorrt-10"


def test_a_table_is_read_as_it_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        f"{TABLE},runtime,timing\n"
        "16,16,3,1,1,1,28,28,8,fp32,0.5,tensorrt-8.4,torch-call\n"
        "16,16,3,1,1,1,28,28,8,fp16,0.4,tensorrt-8.4,torch-call\n"
    )
    found = read_measured(path)
    assert (found.library, found.timing) == ("tensorrt-8.4", "torch-call")
    assert len(found.workloads) == 1 and np.array_equal(found.latency_ms, [0.5])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TABLE.removesuffix(",latency_ms") + "\n16,16,3,1,1,1,28,28,8,fp32\n", "latency_ms"),
        (TABLE + "\n16,16,3,1,1,1,28,28,8,fp32,0\n", "row 1"),
        (f"{TABLE},timing\n" + "".join(f"16,16,3,1,1,1,28,28,8,fp32,1,{one}\n" for one in ("engine", "")), ""),
        (
            f"{TABLE},timing\n" + "".join(f"16,16,3,1,1,1,28,28,8,fp32,1,{one}\n" for one in ("engine", "torch-call")),
            "2 ",
        ),
    ],
)
def test_a_table_without_usable_latencies_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    if not words:  # the default is a mode like any other
        assert len(read_measured(path).workloads) == 2
        return
    with pytest.raises(TableError, match=words):
        read_measured(path)


def test_a_profile_with_a_convolution_that_cannot_be_is_refused(tmp_path: Path) -> None:
    none = replace(PLAIN, input_shape=(16, 28, 1), convolution=Geometry(16, 32, (3, 5), groups=2))
    with pytest.raises(TableError, match=r"p\.jsonl.* does not fit"):
        read_measured(_profile(tmp_path / "p.jsonl", DEVICE, ProfileRow(none, TIMING)))
