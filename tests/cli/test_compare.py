"""``compare`` as CI meets it: the exit code, a table before the error, and JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.delivery.manifest import read_manifest, write_manifest
from trt_layermerge.latency.profile import Profile, ProfileKey, ProfileRow
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.runtimes.base import Device

GOLDEN = Path(__file__).parents[1] / "delivery" / "assets" / "manifest-v1.json"
KEY = ProfileKey(Device("GeForce RTX 2080 Ti", "tensorrt", "10.16", "550.54", "fp32", 1, "CUDA graphs", "not told"))
COUNT = 20


def on(**changes: Any) -> ProfileKey:
    """The key of a device that differs in so much."""
    return ProfileKey(replace(KEY.device, **changes))


def write_profile(
    path: Path, pace: float = 1.0, *, slow: float = 1.0, width: int = 100, key: ProfileKey = KEY, count: int = COUNT
) -> Path:
    """A profile whose first row takes ``slow`` times as long as it should."""
    profile = Profile.open(path, key)
    for number in range(count):
        signature = Signature(8, (16, 28, 28), Geometry(16, number + 1, (3, 3)), activation="relu")
        median = round((100_000 + 7 * number) * pace * (slow if number == 0 else 1.0))
        timing = Timing(median, median - width, median + width, median - 500, median + 900, 0.01, 30 + number)
        profile.add(ProfileRow(signature, timing, simulated=key.device.simulated))
    return path


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    return write_profile(tmp_path / "baseline.jsonl")


@pytest.mark.parametrize(
    ("part", "other"), [("n8 ", "n0 "), ("s1x1", "s0x1"), ("g1", "g0"), ("n8 ", f"n{'9' * 5000} ")]
)
def test_a_signature_that_cannot_be_is_exit_3(run: Any, baseline: Path, part: str, other: str) -> None:
    baseline.write_text(baseline.read_text().replace(part, other))
    ran = run("compare", baseline, baseline)
    assert ran.code == 3 and "line 2: the line has what is not a signature" in ran.err, ran.err


def test_no_change_is_exit_0(run: Any, baseline: Path, tmp_path: Path) -> None:
    before = baseline.read_bytes()
    ran = run("compare", baseline, write_profile(tmp_path / "new.jsonl", 1.001))
    assert (ran.code, ran.err) == (0, "")
    assert "20 compared: 0 slower, 0 unclear, 20 same, 0 faster (tolerance 5.0%)" in ran.out
    assert "takes 1.001x" in ran.out and "... and 10 more" in ran.out
    assert max(map(len, ran.out.splitlines())) < 140 and len(ran.out.splitlines()) < 20
    assert baseline.read_bytes() == before


def test_a_profile_with_itself_is_exit_0_and_says_so(run: Any, baseline: Path) -> None:
    ran = run("compare", baseline, baseline)
    assert ran.code == 0 and "20 rows are the baseline's own measurements" in ran.out


def test_a_regression_is_exit_7_after_the_table(run: Any, baseline: Path, tmp_path: Path) -> None:
    ran = run("compare", baseline, write_profile(tmp_path / "new.jsonl", width=120, slow=1.2))
    assert ran.code == 7 and "1 of 20 operations are slower by more than 5 %" in ran.err and "16>1 k3x3" in ran.err
    assert ran.out.splitlines()[1].startswith("slower    1.200x")
    assert run("compare", baseline, tmp_path / "new.jsonl", "--tolerance", "25%").code == 0


def test_what_cannot_be_told_is_exit_8(run: Any, baseline: Path, tmp_path: Path) -> None:
    wide = run("compare", baseline, write_profile(tmp_path / "wide.jsonl", width=9000))
    assert wide.code == 8 and "may be slower" in wide.err and "hint: " in wide.err and "20 unclear" in wide.out
    slow = run("compare", baseline, write_profile(tmp_path / "slow.jsonl", 1.3))
    assert slow.code == 8 and "the machine as a whole takes 1.30 times" in slow.err and "20 same" in slow.out


def test_other_devices_are_exit_9_and_releases_on_request(run: Any, baseline: Path, tmp_path: Path) -> None:
    other = run("compare", baseline, write_profile(tmp_path / "other.jsonl", key=on(name="other")))
    assert other.code == 9 and "device: GeForce RTX 2080 Ti, here other" in other.err and other.out == ""
    newer = write_profile(tmp_path / "newer.jsonl", key=on(driver="595", runtime_version="11.4"))
    assert run("compare", baseline, newer, "--across", "driver").code == 9
    allowed = run("compare", baseline, newer, "--across", "driver", "--across", "runtime_version")
    assert allowed.code == 0 and "across   driver: 550.54, here 595\n" in allowed.out


def test_simulated_is_compared_with_simulated_only(run: Any, baseline: Path, tmp_path: Path) -> None:
    double = write_profile(tmp_path / "double.jsonl", key=on(simulated=True))
    assert run("compare", baseline, double).code == 9
    ran = run("compare", double, double)
    assert ran.code == 0 and ran.out.startswith("SIMULATED")


def test_json_is_complete_and_alone(run: Any, baseline: Path, tmp_path: Path) -> None:
    new = write_profile(tmp_path / "new.jsonl", width=120, slow=1.2, count=COUNT - 1)
    ran = run("compare", baseline, new, "--json")
    found = ran.json
    assert ran.code == found["exit_code"] == 7 and found["objection"] in ran.err
    assert found["kind"] == "profiles" and found["counts"] == {"slower": 1, "unclear": 0, "same": 18, "faster": 0}
    assert len(found["rows"]) == 19 and len(found["only_in_baseline"]) == 1 and found["only_in_new"] == []
    worst = found["rows"][0]
    assert worst["verdict"] == "slower" and worst["new"]["median_ms"] == 0.12
    assert worst["simultaneous_ci"][0] < worst["ci"][0] < worst["ratio"] < worst["ci"][1] < worst["simultaneous_ci"][1]


@pytest.mark.parametrize("option", ["--html", "--summary"])
def test_an_object_says_nothing_where_a_file_cannot_be_written(
    run: Any, baseline: Path, tmp_path: Path, option: str
) -> None:
    (tmp_path / "folder").mkdir()
    ran = run("compare", baseline, baseline, "--json", option, tmp_path / "folder")
    assert ran.code == 3 and ran.out == "" and "folder" in ran.err


def test_what_ci_reads_is_written_before_the_command_fails(run: Any, baseline: Path, tmp_path: Path) -> None:
    names = {"--summary": "s.md", "--junit": "j.xml", "--benchmark-json": "b.json"}
    files = [part for option, name in names.items() for part in (option, tmp_path / name)]
    ran = run("compare", baseline, write_profile(tmp_path / "new.jsonl", width=120, slow=1.2), *files)
    assert ran.code == 7
    (suite,) = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert {"tests": "20", "failures": "1", "skipped": "0"}.items() <= suite.attrib.items()
    assert "| slower | 1.200 |" in (tmp_path / "s.md").read_text()
    entries = json.loads((tmp_path / "b.json").read_text())
    assert len(entries) == COUNT and entries[0].keys() == {"name", "unit", "value", "range"}


def test_what_fails_and_what_is_missing_is_listed(run: Any, baseline: Path, tmp_path: Path) -> None:
    path = write_profile(tmp_path / "new.jsonl", count=COUNT - 1)
    new = Profile.read(path)
    for row in list(new)[:2]:
        new.add(ProfileRow(row.signature, None, "failed", "no tactic"))
    ran = run("compare", baseline, path)
    assert ran.code == 7 and "failed: no tactic" in ran.err
    assert "failed, and did not before: 2\n" in ran.out and "only in the baseline: 1\n" in ran.out
    assert len(run("compare", baseline, path, "--json").json["broken"]) == 2
    mended = run("compare", path, baseline)
    assert mended.code == 0 and "not compared: 2\n" in mended.out and "only in the new one: 1\n" in mended.out


def write_delivery(path: Path, slower: float = 1.0, width: float = 0.002, **changes: Any) -> Path:
    manifest = read_manifest(GOLDEN)
    figures = {}
    for name, latency in (("original", 4.0), ("compressed", 2.0 * slower)):
        interval = (latency * (1 - width), latency * (1 + width))
        update = {"latency_ms": latency, "latency_ci_ms": interval, "accuracy": changes.pop(name, 0.93)}
        figures[name] = getattr(manifest, name).model_copy(update=update)
    write_manifest(path, manifest.model_copy(update=figures | {"speedup": 2.0 / slower} | changes))
    return path


@pytest.mark.parametrize(
    ("new", "options", "code", "words"),
    [
        ({}, [], 0, "is the same"),
        ({"slower": 0.9}, [], 0, "rose"),
        ({"slower": 1.1}, [], 7, "fell from 2.000x to 1.818x"),
        ({"slower": 1.1}, ["--tolerance", "0.2"], 0, "is the same"),
        ({"slower": 1.1, "width": 0.1}, [], 8, "cannot be told"),
        ({"compressed": 0.91}, [], 0, "not evaluated"),
        ({"compressed": 0.91}, ["--accuracy-tolerance", "1"], 7, "changed by -2"),
        ({"compressed": None}, ["--accuracy-tolerance", "1"], 3, "holds none"),
        ({"batch": 1}, [], 9, "batch: 8, here 1"),
    ],
)
def test_deliveries(run: Any, tmp_path: Path, new: dict[str, Any], options: list[str], code: int, words: str) -> None:
    old = write_delivery(tmp_path / "old.json")
    ran = run("compare", old, write_delivery(tmp_path / "new.json", **new), *options)
    assert ran.code == code and words in ran.out + ran.err
    assert ("speed-up" in ran.out) == (code not in (3, 9)), "the table is printed before the error"
    assert ran.err.count("error: ") == (code != 0)
    if code not in (3, 9):
        found = run("compare", old, tmp_path / "new.json", *options, "--json").json
        assert found["kind"] == "manifests" and found["exit_code"] == code
        assert found["speedup"]["ratio"] == pytest.approx(1 / new.get("slower", 1.0))


def test_two_of_a_kind_or_one_message(run: Any, baseline: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("my notes\n")
    (tmp_path / "torn.jsonl").write_bytes(baseline.read_bytes() + b"{]\n")
    (tmp_path / "cut.json").write_bytes(GOLDEN.read_bytes()[:-9])
    fields = json.loads(GOLDEN.read_bytes())
    fields["compressed"] |= {"latency_ms": -1}
    (tmp_path / "negative.json").write_text(json.dumps(fields))
    for new, message in {
        GOLDEN: "one of them is a profile|the other the manifest",
        tmp_path / "notes": "neither a profile nor the manifest",
        tmp_path: "cannot read",
        tmp_path / "missing": "cannot read",
        tmp_path / "torn.jsonl": "line 22: the line is not JSON",
        tmp_path / "cut.json": "is not a manifest|the other the manifest",
    }.items():
        for arguments in ((baseline, new), (new, baseline)):
            ran = run("compare", *arguments)
            assert ran.code == 3 and ran.out == "" and ran.err.count("error: ") == 1, ran.err
            assert any(words in ran.err for words in message.split("|")), ran.err
    assert run("compare", GOLDEN, tmp_path / "negative.json").code == 3


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), byte=st.sampled_from(b'0123456789eE.-"{}[],: nulx\xff\n'))
def test_any_changed_byte_is_a_verdict_or_one_message(
    run: Any, baseline: Path, tmp_path: Path, data: Any, byte: int
) -> None:
    content = bytearray(baseline.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = byte
    (tmp_path / "new.jsonl").write_bytes(content)
    for arguments in ([], ["--json"]):
        ran = run("compare", baseline, tmp_path / "new.jsonl", *arguments)
        assert ran.code in (0, 3, 7, 8, 9) and ran.err.count("error: ") == (ran.code != 0)
        assert (ran.out != "") == (ran.code in (0, 7, 8))


@pytest.mark.parametrize("tolerance", ["0", "0%", "-5%", "5", "101%", "five", "nan", "1e-3"])
def test_tolerances_that_are_none(run: Any, baseline: Path, tolerance: str) -> None:
    ran = run("compare", baseline, baseline, f"--tolerance={tolerance}")
    assert ran.code == 2 and "write 5% or 0.05" in ran.err and ran.out == ""


def test_options_that_do_not_fit(run: Any, baseline: Path) -> None:
    assert run("compare", baseline, baseline, "--accuracy-tolerance", "1").code == 2
    assert run("compare", baseline, baseline, "--across", "threads").code == 2
    assert run("compare", baseline).code == 2


def test_a_page_is_written_whatever_the_exit_code(run: Any, baseline: Path, tmp_path: Path) -> None:
    slow = write_profile(tmp_path / "slow.jsonl", width=120, slow=1.3)
    for new, code in ((slow, 7), (baseline, 0)):
        ran = run("compare", baseline, new, "--html", tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text()
        assert ran.code == code and page.startswith("<!doctype html>")
        assert ("operations are slower by more than" in page) is (code == 7)
    ran = run("compare", GOLDEN, GOLDEN, "--html", tmp_path / "page.html")
    assert ran.code == 0 and '<div class="strips">' in (tmp_path / "page.html").read_text()
