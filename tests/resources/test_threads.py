"""Cores are counted as this process may use them, and one place tells torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.resources.threads import physical_cores, single_threaded, use_threads


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Eight logical processors, two of each core, of which some are allowed."""

    def make(allowed, files=None):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(allowed), raising=False)
        topology = {
            f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}" for n in range(8)
        }
        for name, text in (topology | (files or {})).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")
        return physical_cores(tmp_path)

    return make


V1 = "sys/fs/cgroup/cpu,cpuacct/job"


@pytest.mark.parametrize(
    ("allowed", "files", "cores"),
    [
        (range(8), {}, 4),
        ([0, 4], {}, 1),
        ([0, 1, 4, 6], {}, 3),
        (range(8), {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "250000 100000"}, 2),
        (range(8), {"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "50000 100000"}, 1),
        (range(8), {"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "max 100000"}, 4),
        (
            range(8),
            {"proc/self/cgroup": "5:memory:/x\n2:cpu,cpuacct:/job", f"{V1}/cpu.cfs_quota_us": "300000",
             f"{V1}/cpu.cfs_period_us": "100000"},
            3,
        ),
        (range(8), {"proc/self/cgroup": "2:cpu,cpuacct:/job", f"{V1}/cpu.cfs_quota_us": "-1"}, 4),
    ],
)  # fmt: skip
def test_cores_are_physical_allowed_and_paid_for(machine, allowed, files, cores):
    assert machine(allowed, files) == cores


@given(st.sets(st.integers(0, 63), min_size=1))
def test_where_nothing_is_told_each_processor_is_a_core(allowed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda pid: allowed, raising=False)
        assert physical_cores(Path("/nowhere")) == len(allowed)


def test_the_option_goes_before_the_environment_and_that_before_the_cores(monkeypatch):
    cores, before = physical_cores(), torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        for told, threads in ((3, 3), (None, 3)):  # torch has heard the environment by itself
            use_threads(told)
            assert torch.get_num_threads() == threads
        monkeypatch.delenv("OMP_NUM_THREADS")
        use_threads(None)
        assert torch.get_num_threads() == cores
        with single_threaded() as threads:
            assert (threads, torch.get_num_threads()) == (cores, 1)
        assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(before)
