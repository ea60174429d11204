"""A limit on memory as people write it; one that cannot be held is refused before anything is measured."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.errors import ExitCode, UsageError
from trt_layermerge.resources.memory import LEAST, MemoryLimit

WRITTEN = {"4GiB": 4 << 30, "4G": 4 << 30, "4 gib": 4 << 30, "4GB": 4 * 10**9, "500MB": 500_000_000, "1.5T": 3 << 39}


@pytest.mark.parametrize(("text", "size"), WRITTEN.items())
def test_a_size_is_read(text: str, size: int) -> None:
    assert MemoryLimit.parse(text).bytes == size


@given(size=st.integers(LEAST, 1 << 59))
def test_a_number_alone_is_bytes(size: int) -> None:
    assert MemoryLimit.parse(size).bytes == MemoryLimit.parse(f"{size} ").bytes == size


@given(text=st.one_of(st.text(max_size=12), st.sampled_from(["-4GiB", "4XB", "GiB", "1e9", "nan", "4GiBs", "9" * 99])))
def test_what_is_no_size_is_said(text: str) -> None:
    if not re.fullmatch(r"\s*[\d.]+\s*[kmgt]?i?b?\s*", text, re.IGNORECASE) or len(text) > 90:
        with pytest.raises(UsageError, match="is no size"):
            MemoryLimit.parse(text)


def test_less_than_an_empty_program_takes_is_said() -> None:
    with pytest.raises(UsageError, match="less than Python"):
        MemoryLimit.parse("1KiB")


def test_a_limit_that_cannot_be_held_is_refused_with_the_least_that_would_do(run: Any, desk: Any) -> None:
    ran = run("importance", *desk.stage, "--memory-limit", "256MiB")
    assert ran.code == ExitCode.USAGE and not (desk.folder / "out" / "importance.jsonl").exists()
    found = re.search(r"cannot be held: .* takes at least .*\n  hint: pass --memory-limit (\d+MiB)", ran.err)
    assert found is not None, ran.err
    told = run("importance", *desk.stage, "--memory-limit", f"{int(found[1][:-3]) + 512}MiB", "--dry-run")
    assert told.code == 0 and "GiB of memory, as asked for" in told.out
    assert "of what is free now" in run("importance", *desk.stage, "--dry-run").out
