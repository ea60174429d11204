"""``build`` and ``verify`` of an engine on its own, and ``compress --also``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.cli.conftest import DELIVERED
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.nvidia.rtx_plan import PlanHeader, read_header
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import small_model

RTX = ("--runtime", "tensorrt-rtx")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(small_model("batch"), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def compiler() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="needs pip install 'tensorrt-rtx-cu12>=1.7.1'")


def test_an_engine_for_a_gpu_elsewhere_is_written_and_verified(run, model, compiler, tmp_path) -> None:
    engine = tmp_path / "out" / "engine"
    made = run("build", model, *RTX, "--target", "sm75", "--batch", 2, "--output", engine, "--json")
    assert made.code == 0, made.err
    assert made.json["runtime"] == "tensorrt-rtx:sm75" and made.json["inputs"] == {"x": [2, 3, 8, 8]}
    assert made.json["runtime_version"] == compiler.__version__ and made.json["precision"] == "fp32"
    assert read_header(engine) == PlanHeader(compiler.__version__, ("sm75",))
    verified = run("verify", "--manifest", made.json["manifest"], "--json")
    assert verified.code == 0 and verified.json["sha256"] == {"engine": made.json["sha256"]}
    assert verified.json["device"] == "SM75 (ahead of time)"
    shown = run("verify", "--manifest", made.json["manifest"]).out
    assert made.json["sha256"] in shown and "SM75" in shown and compiler.__version__ in shown


def test_an_engine_is_named_after_its_model_and_target(run, model, compiler, tmp_path) -> None:
    assert run("build", model, *RTX, "--target", "sm86").code == 0
    assert run("build", model).code == 0
    names = {path.name for path in tmp_path.iterdir()} - {"model.onnx"}
    engines = {"model.sm86.engine", "model.engine.onnx"}
    assert names == engines | {f"{name}.manifest.json" for name in engines}


def test_what_is_printed_is_what_was_built(run, tmp_path) -> None:
    """A file of a fixed batch is built as it is, and for no other."""
    path = tmp_path / "fixed.onnx"
    onnx.save(small_model(1), path)
    refused = run("build", path, "--batch", 8)
    assert refused.code == 2 and "--batch 8" in refused.err and "x of batch 1 and no other" in refused.err
    assert not path.with_suffix(".engine.onnx").exists()
    for options in ((), ("--batch", 1)):
        assert "fp32, batch 1 (" in run("build", path, *options).out
        assert run("build", path, *options, "--json").json["inputs"] == {"x": [1, 3, 8, 8]}
    onnx.save(small_model("batch"), path)
    assert "fp32, batch 8 (" in run("build", path).out and "fp32, batch 3 (" in run("build", path, "--batch", 3).out


@pytest.mark.parametrize("name", ["model.engine.onnx", "model.onnx", "model.engine.onnx.manifest.json"])
def test_a_flipped_byte_is_5_and_a_missing_file_3(run, model, name) -> None:
    assert run("build", model).code == 0
    path = model.with_name(name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    manifest = model.with_name("model.engine.onnx.manifest.json")
    flipped = run("verify", "--manifest", manifest)
    assert flipped.code == 5 and name in flipped.err and "Traceback" not in flipped.err
    path.unlink()
    missing = run("verify", "--manifest", manifest)
    assert missing.code == 3 and name in missing.err


def test_a_precision_is_compared_with_the_graph(run, model) -> None:
    refused = run("build", model, "--precision", "fp16")
    assert refused.code == 3 and "written in fp32, not in fp16" in refused.err


def test_a_target_needs_a_compiler_that_has_it(run, model, compiler) -> None:
    assert run("build", model, "--target", "sm75").code == 2
    refused = run("build", model, *RTX, "--target", "sm70")
    assert refused.code == 2 and "sm75, sm80, sm86, sm89, sm120" in refused.err


def test_one_engine_takes_a_range_of_batches(run, model, compiler) -> None:
    made = run("build", model, *RTX, "--batches", "1-16", "--batch", 4, "--optimization-level", 2, "--json")
    assert made.code == 0, made.err
    manifest = json.loads(Path(made.json["manifest"]).read_text())
    assert manifest["batches"] == [1, 16] and manifest["inputs"] == {"x": [4, 3, 8, 8]}
    assert run("build", model, *RTX, "--batches", "1-16", "--batch", 17).code == 3


@pytest.mark.parametrize("option", [["--batches", "1-4"], ["--workspace", 64]])
def test_what_only_a_builder_knows_is_refused_elsewhere(run, model, option) -> None:
    assert run("build", model, *option).code == 2
    assert run("build", model, *RTX, "--timing-cache", "file").code == 2


def test_a_compiler_that_is_missing_is_6(run, model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    refused = run("build", model, *RTX)
    assert refused.code == 6 and "pip install 'tensorrt-rtx-cu12>=1.7.1'" in refused.err


def test_compress_builds_for_a_gpu_elsewhere_as_well(run, done, compiler) -> None:
    ran = run("compress", *done.job, "--also", "tensorrt-rtx:sm75", "--json")
    assert ran.code in DELIVERED, ran.err
    also = ran.json["also"]
    engine = Path(also["engine"])
    assert also["skipped"] is None and engine.parent == done.folder / "out" and "also" in ran.err
    assert read_header(engine).targets == ("sm75",)
    assert also["compressed_launches"] > 0 and also["original_launches"] > 0
    manifest = json.loads((engine.parent / f"{engine.name}.manifest.json").read_text())
    assert manifest["files"].keys() == {engine.name, "compressed.onnx"} and manifest["inputs"]["input"][0] == 8


def test_inspect_lists_the_kernels_of_a_plan(run, model, compiler, tmp_path) -> None:
    engine = tmp_path / "net.engine"
    assert run("build", model, *RTX, "--output", engine).code == 0
    ran = run("inspect", engine, "--json")
    assert ran.code == 0, ran.err
    convolutions = [kernel for kernel in ran.json["kernels"] if kernel["convolution"]]
    assert ran.json["launches"] == len(ran.json["kernels"]) >= len(convolutions) >= 1
    assert {kernel["type"] for kernel in convolutions} == {"fp32"} and all(kernel["fused"] for kernel in convolutions)
    assert ran.json["targets"] == ["sm75"] and f"{ran.json['launches']} launches" in run("inspect", engine).out
    engine.write_bytes(b"no plan")
    assert run("inspect", engine).code == 3


def test_compress_times_both_networks_where_the_other_runtime_runs_here(run, done) -> None:
    """The papers' second column."""
    ran = run("compress", *done.job, "--also", "torch:cpu", "--json")
    assert ran.code in DELIVERED, ran.err
    also = ran.json["also"]
    assert also["runtime"] == "torch:cpu" and also["engine"].endswith("compressed.torch-cpu.torch.onnx")
    assert (
        also["speedup"] == pytest.approx(also["original_latency_ms"] / also["compressed_latency_ms"])
        and also["speedup"] > 0
    )
    assert "in torch:cpu, ms" in ran.err and f"{also['speedup']:.2f}x" in ran.err


def test_compress_goes_on_without_the_compiler(run, done, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    ran = run("compress", *done.job, "--also", "tensorrt-rtx:sm75", "--json")
    assert ran.code in DELIVERED and ran.json["also"]["engine"] is None and Path(ran.json["manifest"]).is_file()
    assert "pip install 'tensorrt-rtx-cu12>=1.7.1'" in ran.json["also"]["skipped"]


def test_a_name_that_no_runtime_has_is_refused_before_the_work(run, desk) -> None:
    refused = run("compress", *desk.job, "--also", "tensorrt-rtx:sm70")
    assert refused.code == 2 and "sm70" in refused.err and not (desk.folder / "out").exists()


@pytest.mark.parametrize("name", ["original.onnx", "compressed.onnx"])
def test_all_that_a_job_delivers_compiles(done, compiler, name) -> None:
    path = done.folder / "out" / name
    (value,) = onnx.load(path).graph.input
    shape = (8, *(size.dim_value for size in value.type.tensor_type.shape.dim[1:]))
    assert get_runtime("tensorrt-rtx:sm75").build(path, BuildOptions(), {value.name: shape}).outputs
