"""``--rebuilds`` and ``--try-routes`` through whole jobs, on a double whose builds differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import Desk, Ran, _desk, _run
from tests.doubles.fixtures import replaced


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, Ran]]:
    """A whole job whose engines are built three times, by the better of two routes."""
    folder = tmp_path_factory.mktemp("tensorrt-again")
    with replaced(folder) as tell:
        tell(run_us=100, build_noise=0.1, knobs={"-slice_fusion=off": 0.5, "-slice_fusion=on": 1.0})
        desk = _desk(folder)
        more = ["--runtime", "tensorrt", "--rebuilds", 3]
        routes = ["--try-routes", "-slice_fusion=[on|off] -no_such=[1]"]
        yield desk, _run("compress", *desk.job, *more, *routes, "--json")


def test_the_fastest_route_is_taken_and_one_that_is_not_known_told_of(again: Any) -> None:
    _, ran = again
    assert ran.code == 8 and ran.err.count("does not take the build route '-no_such=1'") == 1, ran.err
    for name in ("original", "compressed"):
        assert ran.json[name]["build_route"] == "-slice_fusion=off"
        assert ran.json[name]["latency_ms"] == pytest.approx(0.05, rel=0.1)


def test_final_engines_that_were_built_again_tell_how_they_differ(again: Any) -> None:
    desk, ran = again
    for name in ("original", "compressed"):
        figures = ran.json[name]
        low, high = figures["latency_ci_ms"]
        assert figures["builds"] == 3 and 0 < figures["build_spread"] < 0.1
        assert high - low >= 2 * 1.9 * figures["build_spread"] * figures["latency_ms"]
        assert figures["latency_ms"] <= figures["latency_p90_ms"] <= figures["latency_p99_ms"]
        assert figures["host_latency_ms"] > 0
    text = (desk.folder / "out" / "report.html").read_text()
    for words in ("builds differ by", "99th percentile", "by the host"):
        assert words in text


def test_a_sample_of_rows_was_built_again_and_all_have_requests_timed(again: Any) -> None:
    desk, _ = again
    (path,) = (desk.folder / "profiles").rglob("*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    several = [row for row in rows if row["builds"] == 3]
    assert 0 < len(several) < len(rows) and all(row["build_spread"] > 0 for row in several)
    assert all(row["host_ns"] > 0 and row["p90_ns"] <= row["p99_ns"] for row in rows)
    shown = _run("profile", "show", path)
    assert shown.code == 0 and f"of {len(several)} operations" in shown.out and "by the host" in shown.out
