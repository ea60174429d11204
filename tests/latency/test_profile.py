from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import Caution, ExitCode, IncompatibleError, TableError
from trt_layermerge.latency.profile import Profile, ProfileKey, ProfileRow
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.runtimes.base import Device

GOLDEN = Path(__file__).parent / "assets" / "profile-v1.jsonl"
KEY = ProfileKey(
    Device(
        name="Intel(R) Xeon(R) Processor",
        driver=None,
        runtime="onnxruntime",
        runtime_version="1.31.1",
        precision="fp32",
        timing="wall clock of one run, bound buffers, amid blocked neighbours",
        threads=1,
        clocks="not told",
    )
)
CONV = Signature(8, (16, 28, 28), Geometry(16, 16, (3, 3), padding=(1, 1, 1, 1)), activation="relu")
STRIDE = Signature(8, (16, 28, 28), Geometry(16, 32, (3, 3), (2, 2), (1, 0, 1, 0)), residual=True)
PASS = Signature(8, (16, 28, 28), None, bias=False, activation="leaky_relu(0.01)")
TIMING = Timing(341_000, 339_500, 343_210, 330_001, 360_002, 0.0213, 31)
ROWS = [
    ProfileRow(CONV, TIMING, drift=1.0123),
    ProfileRow(STRIDE, replace(TIMING, median_ns=340_000), "degraded", "too noisy", 0.99, True, 2300.0, 61.5),
    ProfileRow(PASS, None, "failed", "no such activation"),
]
LABELS = {"name": "device"}
"""As a profile calls what ``Device`` calls otherwise."""


def on(**changes: Any) -> ProfileKey:
    """The key of a device that differs in so much."""
    return ProfileKey(replace(KEY.device, **changes))


def write(path: Path, rows: list[ProfileRow] = ROWS) -> Profile:
    profile = Profile.open(path, KEY)
    for row in rows:
        profile.add(row)
    return profile


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written, read = write(tmp_path / "d" / "p.jsonl"), Profile.open(tmp_path / "d" / "p.jsonl", KEY)
    assert list(read) == list(written) == ROWS
    assert len(read) == 3 and read.get(CONV) == ROWS[0] and read.get(replace(CONV, batch=1)) is None
    assert read.sha256 == written.sha256 and read.key == KEY


@pytest.mark.parametrize("path", [GOLDEN, GOLDEN.with_name("profile-0.1.0.jsonl")], ids=["now", "without settings"])
def test_version_1_is_read_for_ever(path: Path) -> None:
    assert list(Profile.open(path, KEY)) == ROWS


def test_a_double_keeps_a_profile_of_its_own(tmp_path: Path) -> None:
    simulated = on(simulated=True)
    assert Profile.path_for(tmp_path, simulated) != Profile.path_for(tmp_path, KEY)
    write(tmp_path / "p.jsonl")
    with pytest.raises(IncompatibleError, match="simulated: False, here True"):
        Profile.open(tmp_path / "p.jsonl", simulated)


def test_version_1_is_what_is_written(tmp_path: Path) -> None:
    assert write(tmp_path / "p.jsonl").path.read_bytes() == GOLDEN.read_bytes()


def test_what_was_added_since_is_written_where_there_is_something_to_tell(tmp_path: Path) -> None:
    told = replace(TIMING, builds=3, p90_ns=362_000, p99_ns=400_000, build_spread=0.0125)
    rows = [replace(ROWS[0], timing=told, host_ns=512_000), *ROWS[1:]]
    profile = write(tmp_path / "p.jsonl", rows)
    assert list(Profile.open(profile.path, KEY)) == rows and profile.build_spread == 0.0125
    lines = [json.loads(line) for line in profile.path.read_text().splitlines()]
    assert lines[1]["host_ns"] == 512_000 and "host_ns" not in lines[2] and "p99_ns" not in lines[2]


@pytest.mark.parametrize("field", ["p90_ns", "p99_ns", "build_spread", "host_ns"])
@pytest.mark.parametrize("value", [-1, 2**80, "1", True, 1e400])
def test_what_was_added_since_is_checked_as_the_rest(tmp_path: Path, field: str, value: object) -> None:
    path = write(tmp_path / "p.jsonl", ROWS[:1]).path
    key, row = path.read_text().splitlines()
    path.write_text(f"{key}\n{json.dumps(json.loads(row) | {field: value})}\n")
    with pytest.raises(TableError, match="line 2"):
        Profile.open(path, KEY)


def test_a_torn_last_line_costs_that_line_only(tmp_path: Path) -> None:
    content = write(tmp_path / "whole.jsonl").path.read_bytes()
    last = content.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(content)):
        path = tmp_path / "torn.jsonl"
        path.write_bytes(content[:end])
        profile = Profile.open(path, KEY)
        assert list(profile) == ROWS[:2]
        profile.add(ROWS[2])
        assert path.read_bytes() == content


def test_a_torn_key_is_begun_again(tmp_path: Path) -> None:
    content = write(tmp_path / "whole.jsonl", ROWS[:1]).path.read_bytes()
    for end in range(content.index(b"\n") + 1):
        (tmp_path / "torn.jsonl").write_bytes(content[:end])
        profile = Profile.open(tmp_path / "torn.jsonl", KEY)
        assert len(profile) == 0
        assert (tmp_path / "torn.jsonl").read_bytes() == content[:end], "looking changes nothing"
        profile.add(ROWS[0])
        assert (tmp_path / "torn.jsonl").read_bytes() == content


def test_a_profile_without_rows_leaves_no_file(tmp_path: Path) -> None:
    profile = Profile.open(tmp_path / "d" / "p.jsonl", KEY)
    assert len(profile) == 0 and len(profile.sha256) == 64 and list(tmp_path.iterdir()) == []


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    for content in (b"my notes", b"my notes\n", b"{}\n", b"\xff\xfe\n", b"\n", b'{"format": "x", "version": 1}\n'):
        path = tmp_path / "notes"
        path.write_bytes(content)
        with pytest.raises(TableError, match="notes"):
            Profile.open(path, KEY)
        assert path.read_bytes() == content
    with pytest.raises(TableError, match="cannot be read"):
        Profile.open(tmp_path, KEY)


@pytest.mark.parametrize("change", [{"threads": 2}, {"runtime_version": "9"}, {"name": "other"}, {"timing": "t"}])
def test_a_profile_of_something_else_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    before = write(tmp_path / "p.jsonl").path.read_bytes()
    (name, value), *_ = change.items()
    with pytest.raises(IncompatibleError, match=f"{LABELS.get(name, name)}: .*, here {value}") as caught:
        Profile.open(tmp_path / "p.jsonl", on(**change))
    assert caught.value.exit_code is ExitCode.INCOMPATIBLE
    assert (tmp_path / "p.jsonl").read_bytes() == before


def test_rows_of_another_driver_are_stale_and_set_aside(tmp_path: Path) -> None:
    before = write(tmp_path / "p.jsonl").path.read_bytes()
    with pytest.warns(Caution, match="driver: None, here 595.1; none of its rows hold"):
        profile = Profile.open(tmp_path / "p.jsonl", on(driver="595.1"))
    assert len(profile) == 0 and (tmp_path / "p.jsonl").read_bytes() == before, "looking changes nothing"
    profile.add(ROWS[0])
    (aside,) = tmp_path.glob("p-*.jsonl")
    assert aside.read_bytes() == before and [row.signature for row in Profile.read(profile.path)] == [ROWS[0].signature]


def test_rows_are_not_lent_to_a_name_that_says_more(tmp_path: Path) -> None:
    """A profile of a time when a CPU was known by its model name alone may be another machine's."""
    old, new = on(name="AMD EPYC"), on(name="AMD EPYC, family 26 model 2 stepping 1")
    assert Profile.path_for(tmp_path, old).parent.name == "amd-epyc"
    assert Profile.path_for(tmp_path, new).parent.name == "amd-epyc-family-26-model-2-stepping-1"
    Profile.open(tmp_path / "p.jsonl", old).add(ROWS[0])
    with pytest.raises(IncompatibleError, match="device: AMD EPYC, here AMD EPYC, family 26 model 2 stepping 1"):
        Profile.open(tmp_path / "p.jsonl", new)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(GOLDEN.read_text().replace('"version": 1', '"version": 2', 1))
    with pytest.raises(IncompatibleError, match="version 2"):
        Profile.open(tmp_path / "p.jsonl", KEY)


GOOD = json.loads(GOLDEN.read_text().splitlines()[1])
BAD_LINES = {
    "garbage": "garbage",
    "empty": "",
    "list": "[]",
    "deep": "[" * 100_000,
    "nan": json.dumps(GOOD | {"drift": float("nan")}),
    "no status": json.dumps({k: v for k, v in GOOD.items() if k != "status"}),
    "unknown field": json.dumps(GOOD | {"colour": 1}),
    "unknown status": json.dumps(GOOD | {"status": "fine"}),
    "text for a number": json.dumps(GOOD | {"median_ns": "341000"}),
    "truth for a number": json.dumps(GOOD | {"samples": True}),
    "float of ns": json.dumps(GOOD | {"median_ns": 341000.5}),
    "signature": json.dumps(GOOD | {"signature": "fp32 conv"}),
    "interval": json.dumps(GOOD | {"ci_low_ns": 400_000}),
    "longer than 64 bits": json.dumps(GOOD | {"ci_high_ns": 2**63}),
    "negative": json.dumps(GOOD | {"ci_low_ns": -1}),
    "reason without need": json.dumps(GOOD | {"reason": "why"}),
    "failed, yet timed": json.dumps(GOOD | {"status": "failed", "reason": "why"}),
    "degraded without reason": json.dumps(GOOD | {"status": "degraded"}),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_line_that_is_no_row_is_named_and_nothing_is_touched(tmp_path: Path, name: str) -> None:
    lines = GOLDEN.read_text().splitlines()
    lines.insert(2, BAD_LINES[name])
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(lines) + "\n")
    before = path.read_bytes()
    with pytest.raises(TableError, match=r"p\.jsonl, line 3: ") as caught:
        Profile.open(path, KEY)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    assert path.read_bytes() == before


def test_a_line_that_is_not_text_is_named(tmp_path: Path) -> None:
    first, *others = GOLDEN.read_bytes().splitlines(keepends=True)
    (tmp_path / "p.jsonl").write_bytes(b"".join([first, others[0], b"\xff\xff\n", *others[1:]]))
    with pytest.raises(TableError, match="line 3: the line is not text"):
        Profile.open(tmp_path / "p.jsonl", KEY)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.integers(0, GOLDEN.stat().st_size - 1), byte=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused_in_words(tmp_path: Path, position: int, byte: int) -> None:
    content = bytearray(GOLDEN.read_bytes())
    content[position] = byte
    (tmp_path / "p.jsonl").write_bytes(content)
    try:
        Profile.open(tmp_path / "p.jsonl", KEY)
    except (TableError, IncompatibleError):
        assert (tmp_path / "p.jsonl").read_bytes() == content


def test_the_last_row_of_a_signature_counts(tmp_path: Path) -> None:
    write(tmp_path / "p.jsonl", [ROWS[0], ROWS[1], replace(ROWS[0], drift=2.0)])
    profile = Profile.open(tmp_path / "p.jsonl", KEY)
    assert len(profile) == 2 and profile.get(CONV) == replace(ROWS[0], drift=2.0)


def test_a_bias_without_a_convolution_makes_no_difference(tmp_path: Path) -> None:
    assert write(tmp_path / "p.jsonl").get(replace(PASS, bias=True)) == ROWS[2]


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    one, two = Profile.open(tmp_path / "p.jsonl", KEY), Profile.open(tmp_path / "p.jsonl", KEY)
    one.add(ROWS[0])
    two.add(ROWS[1])
    one.add(ROWS[2])
    assert list(Profile.open(tmp_path / "p.jsonl", KEY)) == ROWS


def test_where_it_lies(tmp_path: Path) -> None:
    path = Profile.path_for(tmp_path, KEY)
    assert path == tmp_path / "intel-xeon-processor" / "onnxruntime-1.31.1-fp32.jsonl"
    odd = on(name="../../etc", runtime_version="1/../2")
    assert Profile.path_for(tmp_path, odd).resolve().is_relative_to(tmp_path.resolve())
    assert Profile.path_for(tmp_path, on(name="™")).parent.name == "unknown"


def test_a_golden_copy_can_be_continued(tmp_path: Path) -> None:
    shutil.copy(GOLDEN, tmp_path / "p.jsonl")
    Profile.open(tmp_path / "p.jsonl", KEY).add(replace(ROWS[0], signature=replace(CONV, batch=1)))
    assert len(Profile.open(tmp_path / "p.jsonl", KEY)) == 4
