from __future__ import annotations

from pathlib import Path

import pytest

from trt_layermerge.errors import InputError, UsageError
from trt_layermerge.planning.frontier import Frontier, solve
from trt_layermerge.planning.plot import require_plot, write_plot
from trt_layermerge.planning.problem import Item, Problem


@pytest.fixture(scope="module")
def frontier() -> Frontier:
    items = (Item(0, 0, 1, "a", "keep", 9, 0.0), Item(0, 0, 1, "b", "merge", 5, -1.0))
    return solve(Problem((1,), items, 0, 9))


def test_the_same_frontier_makes_the_same_picture(tmp_path: Path, frontier: Frontier) -> None:
    paths = [tmp_path / f"{name}.SVG" for name in "ab"]
    for path in paths:
        write_plot(path, frontier, [frontier.plan(0)], 7)
    text = paths[0].read_text()
    assert "<svg" in text and "dc:date" not in text and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["f.pdf", "f", ".png"])
def test_other_formats_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"neither \.png nor \.svg"):
        require_plot(Path(name))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, frontier: Frontier) -> None:
    (tmp_path / "f.png").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*f\.png"):
        write_plot(tmp_path / "f.png", frontier)
