from __future__ import annotations

import csv
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from tests.latency.test_profile import KEY, ROWS, on, write
from trt_layermerge.errors import IncompatibleError
from trt_layermerge.latency.profile import Profile, ProfileRow
from trt_layermerge.latency.profile_tables import merged_rows, profile_csv


def test_the_surest_row_is_taken_and_of_equals_the_last(tmp_path: Path) -> None:
    ok = next(row for row in ROWS if row.status == "ok")
    assert ok.timing is not None
    later = replace(ok, timing=replace(ok.timing, samples=99))
    unsure, failed = replace(ok, status="degraded", reason="noisy"), ProfileRow(ok.signature, None, "failed", "no")
    for number, (rows, best) in enumerate(
        [
            ((ok, later), later),
            ((ok, unsure), ok),
            ((unsure, ok), ok),
            ((unsure, failed), unsure),
            ((failed, unsure, later, failed), later),
        ]
    ):
        profiles = [write(tmp_path / f"{number}-{index}.jsonl", [row]) for index, row in enumerate(rows)]
        assert merged_rows(profiles) == [best]


def test_shards_make_one_profile_that_is_read_back(tmp_path: Path) -> None:
    shards = [write(tmp_path / f"{index}.jsonl", [row]) for index, row in enumerate(ROWS)]
    whole = Profile.write(tmp_path / "whole.jsonl", KEY, merged_rows(shards))
    assert list(whole) == ROWS and whole.path.read_bytes() == write(tmp_path / "one.jsonl").path.read_bytes()


def test_profiles_of_two_devices_are_not_one(tmp_path: Path) -> None:
    other = Profile.open(tmp_path / "other.jsonl", on(threads=2))
    other.add(ROWS[0])
    with pytest.raises(IncompatibleError, match=r"other\.jsonl cannot be merged: threads: 1, here 2"):
        merged_rows([write(tmp_path / "p.jsonl"), other])


def test_a_csv_has_all_rows_with_what_they_are_of(tmp_path: Path) -> None:
    first = replace(ROWS[0], host_ns=512_000)
    told = profile_csv(write(tmp_path / "told.jsonl", [replace(first, timing=replace(first.timing, p99_ns=400_000))]))
    (cells,) = csv.DictReader(StringIO(told))
    assert (cells["host_ms"], cells["p99_ms"], cells["p90_ms"]) == ("0.512000", "0.400000", "")
    failed = replace(ROWS[0], timing=None, status="failed", reason='no "tactic",\n=1+1')
    profile = write(tmp_path / "p.jsonl", [failed, *ROWS[1:]])
    found = list(csv.DictReader(StringIO(profile_csv(profile))))
    assert [row["signature"] for row in found] == [row.signature.key for row in profile]
    assert found[0]["reason"] == failed.reason and found[0]["median_ms"] == found[0]["samples"] == ""
    for cells, row in zip(found[1:], list(profile)[1:], strict=True):
        assert cells["status"] == row.status and cells["batch"] == str(row.signature.batch)
        if row.timing is not None:
            assert round(1e6 * float(cells["median_ms"])) == row.timing.median_ns
            assert cells["samples"] == str(row.timing.samples)
