"""What runs the pages' commands: it leaves nothing out without a reason, and a sample of it runs here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.registry import BEFORE, NOT_HERE, QUICKER
from tests.docs.running import all_typed, as_run, run, write_programs, write_tables

TYPED = all_typed()
LINES = [one.line for one in TYPED]
TABLES = [one.line for one in TYPED if one.line.startswith("trt-layermerge solve --") and "--plot" not in one.line]


@pytest.mark.parametrize("words", NOT_HERE)
def test_a_reason_is_of_something_that_pages_say(words: str) -> None:
    assert any(one.reason == NOT_HERE[words] and (one.page.startswith(words) or words in one.line) for one in TYPED)


@pytest.mark.parametrize("words", [*QUICKER, *BEFORE])
def test_what_is_added_is_added_to_something(words: str) -> None:
    assert any(words in one.line and one.reason is None for one in TYPED)


def test_most_of_what_can_run_is_found() -> None:
    assert sum(one.reason is None for one in TYPED) >= 15 and {one.page for one in TYPED} >= {
        "README.md",
        "docs/usage.md",
    }


def test_three_dots_are_a_network_of_the_readers() -> None:
    lines = [as_run(line) for line in LINES if " ... " in f"{line} "]
    assert lines and all(
        "..." not in line and line.count("--output") >= 1 and "--task task.py" in line for line in lines
    )


@pytest.mark.parametrize("line", TABLES)
def test_a_plan_for_tables_of_ones_own_is_found_as_the_page_says(line: str, tmp_path: Path) -> None:
    write_programs(tmp_path / "bin")
    write_tables(tmp_path)
    ran = run(line, tmp_path)
    assert ran.returncode == 0 and ran.stdout, ran.stderr
