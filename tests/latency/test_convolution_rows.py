from __future__ import annotations

from pathlib import Path

import pytest

from trt_layermerge.errors import TableError
from trt_layermerge.estimation.device_files import read_card
from trt_layermerge.estimation.latency_model import LatencyModel
from trt_layermerge.latency.convolution_rows import REQUIRED, read_convolutions

HEADER = ",".join(REQUIRED)


def _write(folder: Path, *lines: str) -> Path:
    path = folder / "rows.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_of_several_ways_keep_their_order(tmp_path: Path) -> None:
    shapes = ["16,16,3,1,1,1,28,28,128", "96,96,9,1,4,1,28,28,128", "32,32,3,1,1,32,28,28,128"]
    ways = ["tensorrt-8.4,torch-call", "tensorrt-10,engine", "tensorrt-8.4,amid-network"]
    lines = [f"{shape},{way}" for way in ways for shape in shapes]
    rows, card = read_convolutions(_write(tmp_path, f"{HEADER},runtime,timing", *lines)), read_card("rtx-2080-ti")
    for workload, way, found in zip(rows.workloads, rows.ways, rows.estimates(card), strict=True):
        assert [found] == LatencyModel(card, *way).convolutions([workload])
    assert [way[0] for way in rows.ways] == [way.partition(",")[0] for way in ways for _ in shapes]


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    rows = read_convolutions(_write(tmp_path, HEADER, "16,16,3,2,1,1,28,30,128"))
    (workload,) = rows.workloads
    assert (workload.precision, rows.ways, rows.measured_ms) == ("fp32", (("tensorrt-10", "engine"),), None)
    assert (workload.height, workload.width, workload.stride, workload.padding) == (28, 30, (2, 2), (1, 1, 1, 1))


def test_cells_that_mean_nothing_here_are_passed_through(tmp_path: Path) -> None:
    rows = read_convolutions(_write(tmp_path, f"name,{HEADER}", '"a, b",16,16,3,1,1,1,28,28,128'))
    header, row = rows.csv(rows.estimates(read_card("t4"))).splitlines()
    assert header.startswith("name,") and row.startswith('"a, b",16,16,')


def test_a_column_that_estimates_are_written_to_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="low_ms"):
        read_convolutions(_write(tmp_path, f"{HEADER},low_ms", "16,16,3,1,1,1,28,28,128,1"))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="batch"):
        read_convolutions(_write(tmp_path, HEADER.removesuffix(",batch"), "16,16,3,1,1,1,28,28"))
