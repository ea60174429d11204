from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trt_layermerge.errors import UsageError
from trt_layermerge.estimation.device_files import read_card, write_card
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.estimate import EstimateSettings
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import RuntimeConformance, small_model


class TestEstimateRuntime(RuntimeConformance):
    @pytest.fixture
    def runtime(self):
        return get_runtime("estimate:rtx-2080-ti")


def test_a_file_of_a_card_is_a_target(tmp_path: Path) -> None:
    card, path = read_card("t4"), tmp_path / "mine.toml"
    write_card(path, replace(card, constants=replace(card.constants, amid_network_ms=0.02)))
    (known, mine), options = (get_runtime("estimate:t4"), get_runtime(f"estimate:{path}")), BuildOptions(isolated=True)
    assert known.describe(options).settings != mine.describe(options).settings
    slow, fast = (one.build(small_model(), options).time(1)[0] for one in (mine, known))
    assert slow - fast == 18_000
    with pytest.raises(UsageError, match="nowhere"):
        get_runtime("estimate:nowhere.toml")


def test_the_library_is_the_version_and_decides_the_algorithms() -> None:
    runtime = get_runtime("estimate:rtx-2080-ti")
    old = BuildOptions(settings=EstimateSettings("tensorrt-8.4"))
    assert runtime.describe(old).runtime_version == "tensorrt-8.4"
    assert runtime.describe(BuildOptions()).runtime_version == "tensorrt-10"
    with pytest.raises(UsageError, match="estimated-runtime"):
        EstimateSettings("cudnn")


def test_nothing_is_computed_to_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_layermerge.runtimes.ort.ort_runtime.OnnxRuntime.build", None)
    assert get_runtime("estimate:t4").build(small_model(), BuildOptions()).time(2).tolist()
