"""What a profile says of a GPU that fails, trembles or holds itself back; the GPU is a double."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doubles.fixtures import Tell
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import ModelError
from trt_layermerge.latency.measure import DeviceRunner, fill
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.profile import Profile, ProfileKey, ProfileRow
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime

SMALL = Signature(1, (4, 8, 8), Geometry(4, 4, (3, 3), padding=(1, 1, 1, 1)))
LARGE = Signature(1, (4, 8, 8), Geometry(4, 4, (5, 5), padding=(2, 2, 2, 2)))
POLICY = MeasurementPolicy(max_seconds=0.02, min_samples=6, cooling_seconds=0, patience=2)


def rows(folder: Path, *signatures: Signature) -> tuple[Profile, list[ProfileRow]]:
    runtime, options = get_runtime("tensorrt"), BuildOptions(isolated=True)
    key = ProfileKey.of(runtime.describe(options))
    profile = Profile.open(Profile.path_for(folder / "profiles", key), key)
    fill(profile, signatures, DeviceRunner(runtime, options, POLICY))
    found = [profile.get(signature) for signature in signatures]
    assert all(row is not None and row.simulated for row in found), "nothing that a double timed is a measurement"
    return profile, [row for row in found if row is not None]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"builder_fails": "Could not find any implementation for node conv"}, "Could not find any implementation"),
        ({"abort": True}, "SIGABRT"),
        ({"skipped_tactics": 1, "builder_fails": "OutOfMemory"}, "insufficient to use tactic"),
    ],
)
def test_a_build_that_fails_is_a_row_that_says_why(fault: dict, reason: str, doubles: Tell, tmp_path: Path) -> None:
    doubles(run_us=100, only_kernel=5, **fault)
    profile, (failed, fine) = rows(tmp_path, LARGE, SMALL)
    assert failed.status == "failed" and reason in str(failed.reason) and failed.timing is None
    assert fine.status == "ok" and fine.timing is not None and abs(fine.timing.median_ns - 100_000) <= 1
    assert profile.key.device.simulated and "simulated" in str(profile.path)


def test_a_gpu_that_trembles_makes_rows_that_are_not_sure(doubles: Tell, tmp_path: Path) -> None:
    doubles(run_us=500, noise=3.0)
    _, (row,) = rows(tmp_path, SMALL)
    assert row.status == "degraded" and row.reason and row.timing is not None and row.timing.relative_ci > 0.02


def test_a_gpu_that_is_too_hot_makes_rows_that_say_so(doubles: Tell, tmp_path: Path) -> None:
    doubles(run_us=100, reasons=0x40)
    _, (row,) = rows(tmp_path, SMALL)
    assert row.status == "degraded" and "too hot (hardware)" in str(row.reason)


def test_a_gpu_that_is_lost_ends_the_run_and_leaves_no_row(doubles: Tell, tmp_path: Path) -> None:
    doubles(run_us=100, lost_after=60)
    with pytest.raises(ModelError):
        rows(tmp_path, SMALL)
    assert not [line for path in tmp_path.rglob("*.jsonl") for line in path.read_text().splitlines()[1:]]
