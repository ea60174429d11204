"""Whatever our source touches of TensorRT exists in the genuine bindings, with the signature that it is called with."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.contract.checker import ROOT, Findings, check

RUNTIMES = ROOT / "trt_layermerge" / "runtimes" / "nvidia"
SOURCES = [file for file in sorted(RUNTIMES.glob("*.py")) if "import tensorrt" in file.read_text()]
OF_BOTH = ("build_worker.py", "trt_engine.py")
OF_RTX = [file for file in SOURCES if "import tensorrt_rtx" in file.read_text() or file.name in OF_BOTH]
LEAST = 60
"""Fewer names than these, and the checker has not seen our source."""


def test_all_of_tensorrt_that_we_touch_exists(release: str, stubs: Path, record_property) -> None:
    findings = check(SOURCES, stubs, ["tensorrt"])
    record_property("contract", f"TensorRT {release}: {len(findings.touched)} names touched, 0 missing")
    assert findings.errors == () and findings.unchecked == ()
    assert len(findings.touched) >= LEAST
    assert {
        "tensorrt.Builder.build_serialized_network",
        "tensorrt.IExecutionContext.execute_async_v3",
    } < findings.touched


def test_all_of_tensorrt_rtx_that_we_touch_exists(
    rtx_wheel: str, rtx_stubs: Path, tmp_path: Path, record_property
) -> None:
    """What builds and runs with either library does so with TensorRT-RTX in the place of TensorRT."""
    for name in ("tensorrt", "tensorrt_rtx"):
        shutil.copytree(rtx_stubs / "tensorrt_rtx", tmp_path / name)
    findings = check(OF_RTX, tmp_path, ["tensorrt", "tensorrt_rtx"])
    names = {name.split(".", 1)[1] for name in findings.touched}
    record_property("contract", f"{rtx_wheel}: {len(names)} names touched, 0 missing")
    assert findings.errors == () and findings.unchecked == ()
    assert {"IBuilderConfig.set_compute_capability", "Builder.build_serialized_network"} < names
    assert {"IExecutionContext.execute_async_v3", "IRuntimeConfig.set_runtime_cache", "IRuntimeCache.serialize"} < names


def test_build_routes_are_of_11_and_asked_for_by_their_name(release: str, stubs: Path) -> None:
    """Older releases have none, so that no type may name them."""
    config = re.search(
        r"class IBuilderConfig:(.*?)\nclass ", (stubs / "tensorrt" / "__init__.pyi").read_text(), re.DOTALL
    )
    assert config is not None and ("build_route: str" in config[1]) is (int(release.split(".")[0]) >= 11)
    assert '_ROUTE = "build_route"' in (RUNTIMES / "build_worker.py").read_text()


PLANTED = {
    "a flag that 11 has no more": ("config.set_flag(trt.BuilderFlag.FP16)", "FP16"),
    "an attribute that 11 has no more": ("config.int8_calibrator", "int8_calibrator"),
    "a wrong number of arguments": ("config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)", "pool_size"),
    "a wrong keyword": ("config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size=1)", "size"),
    "an argument of the wrong type": ("config.set_flag(trt.MemoryPoolType.WORKSPACE)", "MemoryPoolType"),
    "what returns something else": ("len(config.get_timing_cache())", "ITimingCache"),
    "what mypy does not reach": ("if config.get_timing_cache() is None: trt.NoSuchThing", "NoSuchThing"),
    "a member through several calls": (
        "trt.Builder(trt.Logger()).create_builder_config().max_workspace",
        "max_workspace",
    ),
}


UNTYPED = "trt.get_plugin_registry().no_such_thing"
TWICE = "config.clear_flag(trt.BuilderFlag.TF32)"


@pytest.fixture(scope="module")
def planted(stubs: Path, tmp_path_factory) -> Findings:
    """What is found in a file with all that was planted, a line each, from line 5 on."""
    lines = [line for line, _ in PLANTED.values()] + [UNTYPED, TWICE, TWICE]
    head = "import tensorrt as trt\n\n\ndef planted(config: trt.IBuilderConfig) -> None:\n    "
    file = tmp_path_factory.mktemp("planted") / "planted.py"
    file.write_text(head + "\n    ".join(lines) + "\n")
    return check([file], stubs, ["tensorrt"])


@pytest.mark.parametrize("case", PLANTED)
def test_the_checker_sees_what_was_planted(case: str, release: str, planted: Findings) -> None:
    place = f"planted.py:{5 + list(PLANTED).index(case)}:"
    errors = [error for error in planted.errors if place in error and "error:" in error]
    there = "11 has no more" in case and release.startswith("10.")
    assert errors == [] if there else any(PLANTED[case][1] in error for error in errors)


def test_the_checker_admits_what_it_cannot_check(planted: Findings) -> None:
    assert any("get_plugin_registry" in access for access in planted.unchecked)


def test_the_checker_counts_names_not_mentions(planted: Findings) -> None:
    flags = {name for name in planted.touched if "BuilderFlag" in name}
    assert flags - {"tensorrt.BuilderFlag.FP16"} == {"tensorrt.BuilderFlag", "tensorrt.BuilderFlag.TF32"}
    assert "tensorrt.IBuilderConfig.clear_flag" in planted.touched
