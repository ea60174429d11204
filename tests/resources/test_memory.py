"""What a limit leaves is divided once, the needed first; what is free is what machine and control groups grant."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.resources import memory
from trt_layermerge.resources.memory import (
    MOST_ACTIVATIONS,
    MOST_EQUATIONS,
    RESERVE,
    MemoryLimit,
    Need,
    free_memory,
    least_limit,
    resident,
)

GIB = 1 << 30
sizes = st.integers(0, 16 * GIB)


@given(limit=st.integers(1, 1 << 40), equations=st.integers(0, 3 * GIB), passes=sizes)
def test_what_is_needed_there_is_and_the_rest_is_divided_within_the_limit(limit, equations, passes) -> None:
    room = MemoryLimit(limit).room(need := Need(equations, passes))
    assert room.equations >= equations and room.passes >= passes
    assert room.equations <= MOST_EQUATIONS and room.activations <= MOST_ACTIVATIONS
    least = least_limit(need, 0).bytes
    if limit >= least + GIB:  # this process may have grown a little between the two lines
        assert room.equations + room.activations + room.passes <= limit
    if limit < least - GIB:
        assert room.activations == 0 and room.passes == passes and room.equations == equations


@given(limit=st.integers(GIB, 1 << 40), more=sizes)
def test_a_larger_limit_leaves_no_less(limit, more) -> None:
    less, greater = (MemoryLimit(size).room(Need()) for size in (limit, limit + more + (64 << 20)))
    assert less.equations <= greater.equations and less.activations <= greater.activations


def test_the_least_is_told_for_data_equations_and_a_pass() -> None:
    before = resident()
    least = least_limit(Need(5 * GIB, 2 * GIB), 1 * GIB).bytes
    assert before <= least - 8 * GIB - RESERVE <= resident()


def test_memory_goes_back_where_the_limit_is_near_and_only_there(monkeypatch) -> None:
    given_back = []
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(True))
    MemoryLimit(100 * resident()).keep()
    assert not given_back
    MemoryLimit(resident()).keep()
    assert given_back


def _system(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    8388608 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_what_is_free_is_the_least_that_anyone_grants(tmp_path: Path) -> None:
    assert free_memory(_system(tmp_path / "none", {})) == 8 * GIB
    groups = {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}
    above = {"sys/fs/cgroup/a/memory.max": f"{4 * GIB}", "sys/fs/cgroup/a/memory.current": f"{3 * GIB}"}
    assert free_memory(_system(tmp_path / "two", groups | above)) == GIB
    cached = {"sys/fs/cgroup/a/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n"}
    assert free_memory(_system(tmp_path / "cached", groups | above | cached)) == GIB * 3 // 2
    one = {
        "proc/self/cgroup": "5:memory:/x\n4:cpu:/y\n",
        "sys/fs/cgroup/memory/x/memory.limit_in_bytes": f"{2 * GIB}",
        "sys/fs/cgroup/memory/x/memory.usage_in_bytes": f"{2 * GIB + 1}",
    }
    assert free_memory(_system(tmp_path / "one", one)) == 0, "it is over its limit"


def test_what_no_system_tells_is_taken_to_be_usual(tmp_path: Path) -> None:
    assert free_memory(tmp_path) == MOST_EQUATIONS + MOST_ACTIVATIONS
    assert MemoryLimit.usual().bytes > resident()
