"""Files in the form that trtexec's source writes them, of each of its three exports."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from io import StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trt_layermerge.errors import TableError
from trt_layermerge.latency.trtexec_exports import (
    LayerInfo,
    LayerInfos,
    LayerTime,
    LayerTimes,
    RunTimes,
    is_trtexec_export,
    read_trtexec_export,
    trtexec_csv,
    write_layer_infos,
    write_layer_times,
    write_run_times,
)

ASSETS = Path(__file__).parent / "assets"
TIMES, PROFILE, LAYERS = (ASSETS / f"trtexec-{name}.json" for name in ("times", "profile", "layers"))
TACTIC = "sm75_xmma_fprop_implicit_gemm_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x64x32_stage1_warpsize2x2x1"

names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_runs_are_rows_on_the_gpu_and_with_copies() -> None:
    found = read_trtexec_export(TIMES)
    assert found == RunTimes((0.165, 0.162, 0.164), (0.2013, 0.1983, 0.2003))
    assert (found.timing.median_ns, found.timing.p90_ns, found.timing.samples) == (164_000, 165_000, 3)


def test_layers_are_rows_with_their_shares() -> None:
    found = read_trtexec_export(PROFILE)
    assert isinstance(found, LayerTimes) and found.count == 1534 and len(found.layers) == 3
    assert found.layers[1] == LayerTime("conv1 + relu1", 187.5, 0.122229, 0.12288, 75)
    assert found.layers[2].median_ms is None, "older trtexec tells none"


def test_layers_are_rows_with_what_they_are() -> None:
    half = "Channel major FP16 format where channel % 8 == 0"
    assert read_trtexec_export(LAYERS) == LayerInfos(
        (
            LayerInfo("conv1 + relu1", "CaskConvolution", (half,), TACTIC),
            LayerInfo("pool", "CaskPooling", ("Row major linear FP16 format",), "0x5faf4a0a8a5670ed"),
        )
    )


def test_an_engine_without_details_tells_names_alone(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text('{"Layers": ["conv1 + relu1", "pool"], "Bindings": ["input"]}')
    assert read_trtexec_export(tmp_path / "l.json") == LayerInfos((LayerInfo("conv1 + relu1"), LayerInfo("pool")))


@in_one_folder
@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=30))
def test_runs_that_are_written_are_read(tmp_path: Path, times: list[int]) -> None:
    write_run_times(tmp_path / "t.json", np.array(times))
    found = read_trtexec_export(tmp_path / "t.json")
    assert isinstance(found, RunTimes) and found.compute_ms == found.latency_ms
    assert np.rint(np.array(found.compute_ms) * 1e6).astype(int).tolist() == times
    entries = json.loads((tmp_path / "t.json").read_text())
    assert [entry.keys() for entry in entries] == [json.loads(TIMES.read_text())[0].keys()] * len(times)
    assert all(one["endComputeMs"] <= two["startComputeMs"] + 1e-6 for one, two in pairwise(entries))


@in_one_folder
@given(st.dictionaries(names, st.lists(st.floats(0, 1e3), min_size=3, max_size=3), min_size=1))
def test_layers_that_are_written_are_read(tmp_path: Path, times: dict[str, list[float]]) -> None:
    write_layer_times(tmp_path / "p.json", times)
    found = read_trtexec_export(tmp_path / "p.json")
    assert isinstance(found, LayerTimes) and found.count == 3
    assert {row.name: (row.time_ms, row.median_ms) for row in found.layers} == {
        name: (pytest.approx(sum(each)), sorted(each)[1]) for name, each in times.items()
    }
    assert sum(row.percentage for row in found.layers) == pytest.approx(100 if any(map(sum, times.values())) else 0)


def test_what_an_inspector_tells_is_written_as_it_is(tmp_path: Path) -> None:
    write_layer_infos(tmp_path / "l.json", LAYERS.read_text())
    assert read_trtexec_export(tmp_path / "l.json") == read_trtexec_export(LAYERS)


@pytest.mark.parametrize("path", [TIMES, PROFILE, LAYERS], ids=lambda path: path.stem)
def test_rows_are_csv_too(path: Path) -> None:
    found = read_trtexec_export(path)
    head, *rows = csv.DictReader(StringIO(trtexec_csv(found))), *csv.DictReader(StringIO(trtexec_csv(found)))
    if isinstance(found, RunTimes):
        assert [(float(row["compute_ms"]), float(row["latency_ms"])) for row in rows] == list(
            zip(found.compute_ms, found.latency_ms, strict=True)
        )
    else:
        assert [row["name"] for row in rows] == [layer.name for layer in found.layers]
        assert set(head.fieldnames or ()) == {field.name for field in fields(found.layers[0])}


def test_a_profile_is_told_from_an_export(tmp_path: Path) -> None:
    assert all(map(is_trtexec_export, (TIMES, PROFILE, LAYERS)))
    assert not is_trtexec_export(ASSETS / "profile-v1.jsonl")
    with pytest.raises(TableError, match="cannot read"):
        is_trtexec_export(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "neither a list"),
        ("7", "neither a list"),
        ("{}", "has no Layers in the file"),
        ('{"Layers": [7]}', "entry 1 what is no object"),
        ('{"Layers": [{"LayerType": "x"}]}', "has no Name in entry 1"),
        ('{"Layers": [{"Name": "x", "Outputs": 2.5}]}', "has no Outputs in entry 1"),
        ('[{"count": -1}]', "-1 as count"),
        ('[{"count": 1}, {"name": "a", "timeMs": -1}]', "-1 as timeMs in entry 2"),
        ('[{"count": 1}, "a"]', "has no timeMs in entry 2"),
        ('[{"computeMs": 1}]', "has no latencyMs in entry 1"),
        ('[{"computeMs": true, "latencyMs": 1}]', "True as computeMs"),
        ('[{"computeMs": NaN, "latencyMs": 1}]', "is not JSON"),
        ("[", "is not JSON"),
    ],
)
def test_what_is_none_is_refused_with_the_entry(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(TableError, match=words) as caught:
        read_trtexec_export(tmp_path / "x.json")
    assert "x.json is no export of trtexec: it" in caught.value.message
