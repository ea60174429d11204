"""How many processor cores this process may use, and how many of them torch computes on.

Latencies are none of its business: a runtime's threads are options of its engines.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch

from trt_layermerge.resources.cgroups import control_groups, text_of


def use_threads(threads: int | None) -> None:
    """Let torch compute on so many threads; if not told, on all cores, or as ``OMP_NUM_THREADS`` says."""
    if threads is not None or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads or physical_cores())


@contextmanager
def single_threaded() -> Iterator[int]:
    """Inside, each operation runs on one thread, so that several threads of ours can run some; yields how many may."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


@contextmanager
def workers(number: int, threads: int = 1) -> Iterator[ThreadPoolExecutor]:
    """Threads of ours in which torch computes on so many of its own; what has not begun at the end never does."""
    pool = ThreadPoolExecutor(number, initializer=torch.set_num_threads, initargs=(threads,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def thread_beside() -> Iterator[ThreadPoolExecutor | None]:
    """Inside, torch has half of its threads in one thread of ours, and the rest in this one; ``None`` if it has one."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield None
        return
    torch.set_num_threads(threads - threads // 2)
    try:
        with workers(1, threads // 2) as worker:
            yield worker
    finally:
        torch.set_num_threads(threads)


def physical_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use: of its affinity, two threads of a core counted once, within its cgroup's quota.

    Args:
        root: Where ``sys`` and ``proc`` are; what is not there says nothing.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    cores = {text_of(root / topology.format(cpu)) or str(cpu) for cpu in allowed}
    return max(1, int(min([len(cores), *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that control groups grant."""
    for place in control_groups("cpu", root):
        quota, period = (*text_of(place / "cpu.max").split(), "", "")[:2]
        if not quota:
            quota, period = (text_of(place / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)
