"""Every format that is read: valid files, how they are structured, and the reader that the commands use.

A new format is one entry of ``FORMATS``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from PIL import Image
from safetensors.torch import load, save
from torch import nn

from tests.fuzz import structures
from tests.fuzz.mutation import Structure
from trt_layermerge.cli.commands.build import _shapes as shapes_of
from trt_layermerge.cli.main import main
from trt_layermerge.delivery.checksum import FIELD, with_checksum
from trt_layermerge.delivery.engine_manifest import is_engine_manifest, manifest_path
from trt_layermerge.delivery.engines import build_engine, try_model, verify_built
from trt_layermerge.delivery.manifest import Manifest, read_manifest
from trt_layermerge.delivery.verification import _compare, _read_checks
from trt_layermerge.errors import InputError
from trt_layermerge.estimation.device_files import DEVICE_FOLDER, read_card
from trt_layermerge.estimation.latency_model import LatencyModel
from trt_layermerge.estimation.workload import Workload
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.journal import Journal
from trt_layermerge.latency.convolution_rows import read_convolutions
from trt_layermerge.latency.profile import Profile
from trt_layermerge.latency.recalibration import read_measured
from trt_layermerge.network.onnx_import.size_limits import require_bounded
from trt_layermerge.network.source import try_onnx
from trt_layermerge.network.weights_file import load_weights
from trt_layermerge.onnxfile import read_onnx
from trt_layermerge.pipeline.compression import compress
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.measuring import _read_baseline
from trt_layermerge.pipeline.refine import _FORMAT as REFINEMENT
from trt_layermerge.pipeline.refine import _Measured
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.pipeline.training import _start_from_the_same
from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.methods.registry import method_named
from trt_layermerge.planning.plan import read_plan
from trt_layermerge.planning.tabulated import fastest_intervals, problem_from_tables
from trt_layermerge.regression.comparable import compare_files
from trt_layermerge.regression.printing import comparison_fields, comparison_lines
from trt_layermerge.runtimes.base import BuildOptions, Engine
from trt_layermerge.runtimes.graph_precision import graph_precision
from trt_layermerge.runtimes.nvidia import timing_cache
from trt_layermerge.runtimes.nvidia.rtx_plan import convolution_precisions, moving_kernels, read_header
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import small_model
from trt_layermerge.training.checked import CheckedTask
from trt_layermerge.training.checkpoint import Checkpoint, _checksum
from trt_layermerge.training.datasets import CIFAR_RECORD, Settings, cifar10, image_folder
from trt_layermerge.training.recipes import FOLDER as RECIPES
from trt_layermerge.training.recipes import read_recipe

HERE = Path(__file__).parent
TESTS = HERE.parent


class Silent:
    """Says nothing of a job."""

    def stage(self, name: str) -> None: ...

    def progress(self, done: int, total: int, label: str) -> None: ...


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))


@dataclass(frozen=True)
class Bench:
    """Valid files of every format, in a folder: those of a finished job, and some beside."""

    folder: Path

    @cached_property
    def job(self) -> Job:
        """A job that was done once, in the folder."""
        job: Job = runpy.run_path(str(TESTS / "pipeline" / "assets" / "jobs.py"))["quick_job"](self.folder)
        if not (job.output / "manifest.json").exists():
            compress(open_session(job), Silent())
        return job

    def prepare(self) -> None:
        """Make all valid files; in a fork, for torch and what builds engines may start threads, which forks lack."""
        if (child := os.fork()) == 0:
            for form in FORMATS.values():
                form.samples(self)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise RuntimeError("the valid files cannot be made")

    @cached_property
    def profile(self) -> Path:
        """Its profile."""
        (path,) = self.job.profiles.rglob("*.jsonl")
        return path

    @cached_property
    def delivered(self) -> Engine:
        """Its engine."""
        return get_runtime("onnxruntime").load(self.job.output / "compressed.engine.onnx", self.job.options)

    @cached_property
    def built(self) -> Path:
        """The manifest of an engine on its own."""
        model, engine = self.folder / "small.onnx", self.folder / "small.engine.onnx"
        if not manifest_path(engine).exists():
            onnx.save(small_model(), model)
            build_engine(model, get_runtime("onnxruntime"), BuildOptions(), {}, engine)
        return manifest_path(engine)

    def output(self, pattern: str) -> list[bytes]:
        """The job's files of a name."""
        return [path.read_bytes() for path in sorted(self.job.output.glob(pattern))]


Read = Callable[[Path, Bench], object]


@dataclass(frozen=True)
class FileFormat:
    """A format.

    Attributes:
        name: What it is called.
        file: Name of a file of it.
        samples: Makes valid files.
        read: Reads a file as the commands do, and uses what it read as they do.
        structure: What changes it sensibly.
        finish: Makes a changed file pass its own checksum.
        apart: Read in a process of its own, which may crash; what goes well there is read here, too.
        share: How many inputs for one of another format; slow formats have fewer.
    """

    name: str
    file: str
    samples: Callable[[Bench], Sequence[bytes]]
    read: Read
    structure: Structure | None = None
    finish: Callable[[bytes], bytes] | None = None
    apart: Callable[[str], object] | None = None
    share: float = 1.0


def _resealed(data: bytes) -> bytes:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if not isinstance(fields, dict):
        return data
    fields.pop(FIELD, None)
    try:
        return with_checksum(fields)
    except ValueError:
        return data


def _profile(path: Path, bench: Bench) -> None:
    profile = Profile.read(path)
    with contextlib.suppress(InputError):
        read_measured(path)
    found = compare_files(
        bench.profile if profile.key == Profile.read(bench.profile).key else path, path, 0.05, None, ()
    )
    list(comparison_lines(found))
    json.dumps(comparison_fields(found))


def _measured_profile(path: Path, _: Bench) -> None:
    read_measured(path)


def _manifest(path: Path, bench: Bench) -> None:
    assert isinstance(read_manifest(path), Manifest)
    found = compare_files(bench.job.output / "manifest.json", path, 0.05, 1.0, ("runtime_version",))
    list(comparison_lines(found))
    json.dumps(comparison_fields(found))


def _engine_manifest(path: Path, bench: Bench) -> None:
    for name in ("small.onnx", "small.engine.onnx"):
        (path.parent / name).write_bytes((bench.built.parent / name).read_bytes())
    is_engine_manifest(path)
    verify_built(path)


def _config(path: Path, _: Bench) -> None:
    """The command line itself: what it refuses it says, with an exit code."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["compress", "/no/such/model.onnx", "--config", str(path)])
        except SystemExit as stop:
            said = err.getvalue().encode("utf-8", "backslashreplace").decode()
            if stop.code not in (2, 3, 6) or not said.strip() or "Traceback" in said:
                raise AssertionError(f"exit code {stop.code}: {said[:500]}") from None
            return
    raise AssertionError("a model that is not there was compressed")


def _card(path: Path, _: Bench) -> None:
    card = read_card(str(path))
    LatencyModel(card).convolutions(
        [Workload(1, 64, 64, 56, 56, (3, 3)), Workload(8, 32, 32, 14, 14, (3, 3), groups=32)]
    )
    LatencyModel(card).engine_run()


LATENCIES = """start,end,kernel,depthwise,latency_ms,latency_low_ms,latency_high_ms
0,1,3,0,1.0,0.9,1.1
1,2,3,1,1.0,0.9,1.1
2,3,3,0,2.0,1.9,2.1
0,2,5,0,1.5,1.4,1.6
1,3,5,0,2.25,2.2,2.3
0,3,7,0,1e0,0.9,1.1
"""
IMPORTANCES = """start,end,kernel,depthwise,importance
0,1,3,0,0
1,2,3,1,0.0
2,3,3,0,-0.0
0,2,5,0,-0.5
1,3,5,0,-0.25
0,3,7,0,-1.5e0
"""
CONVOLUTIONS = """in_channels,out_channels,kernel,stride,padding,groups,height,width,batch,precision,runtime,timing,\
latency_ms
64,64,3,1,1,1,56,56,1,fp32,tensorrt-10,engine,0.1
32,32,3,2,1,32,112,112,8,fp16,tensorrt-8.2,amid-network,"0.05"
16,96,1,1,0,1,112,112,128,int8,tensorrt-10,torch-call,1.5
"""


def _solved(latency: Path, importance: Path) -> None:
    frontier = solve(problem_from_tables(method_named("joint", {}), latency, importance), None)
    frontier.best(frontier.problem.original_ns)


def _beside(path: Path, name: str, text: str) -> Path:
    other = path.with_name(name)
    other.write_text(text)
    return other


def _depth(path: Path, _: Bench) -> None:
    method: Any = method_named("depth", {})
    fastest_intervals(method, path)


def _convolutions(path: Path, _: Bench) -> None:
    rows = read_convolutions(path)
    rows.csv(rows.estimates(read_card("rtx-2080-ti")))
    with contextlib.suppress(InputError):
        rows.measurements()


def _onnx_gate(path: Path, _: Bench) -> None:
    require_bounded(read_onnx(path), str(path))


def _functions() -> bytes:
    model = small_model()
    body = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Clip", ["b", "low", "high"], ["c"])]
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("mine", "Limited", ["a", "low", "high"], ["c"], body, opset))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    for name in ("low", "high"):
        model.graph.initializer.append(helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [6.0 * (name == "high")]))
    model.graph.node[1].CopyFrom(helper.make_node("Limited", ["c", "low", "high"], ["y"], domain="mine"))
    return bytes(model.SerializeToString())


def _onnx_samples(bench: Bench) -> list[bytes]:
    return [*bench.output("original.onnx"), small_model("batch").SerializeToString(), _functions()]


def _ran(path: Path, _: Bench) -> None:
    try_onnx(str(path))


def _built(path: Path, _: Bench) -> None:
    """As ``build`` does it, by the runtime that is all Python."""
    graph = read_onnx(path)
    graph_precision(graph)
    get_runtime("estimate:rtx-2080-ti").build(path, BuildOptions(), shapes_of(graph, 8))


def _engine(path: Path, bench: Bench) -> None:
    get_runtime("onnxruntime").load(path, BuildOptions())


def _checks(path: Path, bench: Bench) -> None:
    inputs, outputs = _read_checks(path, bench.delivered)
    _compare(bench.delivered, inputs, outputs, "fp32", "the recorded outputs of the PyTorch network")


def _checkpoint(path: Path, _: Bench) -> None:
    found = Checkpoint.read(path)
    found.require(found.identity, path)


def _start(path: Path, bench: Bench) -> None:
    network: Any = _network()
    _start_from_the_same(network, path)


def _weights(path: Path, _: Bench) -> None:
    load_weights(_network(), path)


def _safetensors(_: Bench) -> list[bytes]:
    state = _network().state_dict()
    return [save(state), save({f"module.{name}": value for name, value in state.items()})]


def _saved(bench: Bench) -> list[bytes]:
    state = _network().state_dict()
    whole = {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: torch.zeros(3)}, "lr": 0.1}}
    found = []
    for value, zipped in ((state, True), (whole, True), (whole, False)):
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=zipped)
        found.append(file.getvalue())
    return found


def _plan_of_rtx(_: Bench) -> list[bytes]:
    heads = json.loads((TESTS / "runtimes" / "nvidia" / "assets" / "rtx_plan_heads.json").read_text())
    program = runpy.run_path(str(TESTS / "runtimes" / "nvidia" / "test_rtx_plan.py"))["PROGRAM"]
    plans = [bytes.fromhex(one["head"])[:112] + program for one in heads]
    return [plan[:16] + len(plan).to_bytes(8, "little") + plan[24:] for plan in plans]


def _rtx(path: Path, _: Bench) -> None:
    read_header(path)
    convolution_precisions(path.read_bytes())
    moving_kernels(path.read_bytes())


def _cached(path: Path, _: Bench) -> None:
    from tests.doubles.fixtures import replaced

    with replaced(path.parent):
        import tensorrt as trt

        config: Any = trt.Builder(trt.Logger()).create_builder_config()
        timing_cache.read_into(path, config)
        timing_cache.save(path, config)


def _images(_: Bench) -> list[bytes]:
    found = []
    for form in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
        file = io.BytesIO()
        Image.fromarray(np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)).save(file, form)
        found.append(file.getvalue())
    return found


def _image_folder(path: Path, bench: Bench) -> None:
    for part in ("train", "val"):
        for name in ("bright", "dark"):
            folder = path.parent / part / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "x.png").write_bytes(path.read_bytes() if name == "dark" else _GOOD)
    task = CheckedTask(replace(image_folder(path.parent, Settings(8, 2)), workers=0))
    for batches in (task.test_batches(), task.training_batches(seed=0, epoch=0)):
        list(batches)


_GOOD = _images(Bench(HERE))[0]


def _cifar(path: Path, _: Bench) -> None:
    for name in ("data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        (path.parent / f"{name}.bin").write_bytes(bytes(CIFAR_RECORD) * 4)
    task = CheckedTask(cifar10(path.parent, Settings(batch_size=4)))
    list(task.training_batches(seed=0, epoch=0))


def _refinement(_: Bench) -> list[bytes]:
    rows = [
        {"format": REFINEMENT.tag, "version": REFINEMENT.version, "settings": "ab12"},
        {"plan": "0123456789abcdef", "loss": 0.25, "onnx": "f" * 64},
        {"plan": "0123456789abcdef", "measured_ns": 120000, "original_ns": 240000},
    ]
    return ["".join(json.dumps(row) + "\n" for row in rows).encode()]


def _tensorrt_profile(bench: Bench) -> list[bytes]:
    head, *rows = bench.profile.read_text().splitlines()
    key = {**json.loads(head), "runtime": "tensorrt", "runtime_version": "10.9.0.34"}
    return ["\n".join([json.dumps(key), *rows, ""]).encode()]


def _recipes(_: Bench) -> list[bytes]:
    return [path.read_bytes() for path in sorted(RECIPES.glob("*.toml"))]


def _cards(_: Bench) -> list[bytes]:
    return [path.read_bytes() for path in sorted(DEVICE_FOLDER.glob("*.toml"))]


def _configs(_: Bench) -> list[bytes]:
    demo = (TESTS.parent / "examples" / "fashion_mnist" / "demo.toml").read_bytes()
    return [
        re.sub(rb"(?m)^(task|also) .*$", b'task = "no/such.py"', demo, count=1),
        b'method = "depth"\nalpha = 1.0\nspeedup = 1.8\nprecision = "fp16"\nrefine = 3\ndevice = "cpu"\n',
    ]


def _checkpoint_resealed(data: bytes) -> bytes:
    """With the checksum of what the header says now, where it can be read at all."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        said = header["__metadata__"]
        said["seal"] = _checksum(said, load(data))
        text = json.dumps(header).encode()
    except Exception:
        return data
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


_LINES, _TABLE, _MODEL = structures.json_lines, structures.csv_table, structures.onnx_model
_GOLDEN = (TESTS / "latency" / "assets" / "profile-v1.jsonl").read_bytes()

FORMATS = {
    one.name: one
    for one in (
        FileFormat("profile", "p.jsonl", lambda b: [b.profile.read_bytes(), _GOLDEN], _profile, _LINES),
        FileFormat("profile to recalibrate by", "p.jsonl", _tensorrt_profile, _measured_profile, _LINES),
        FileFormat(
            "importance table",
            "i.jsonl",
            lambda b: b.output("importance.jsonl"),
            lambda p, _: ImportanceTable.read(p),
            _LINES,
        ),
        FileFormat("refinement", "r.jsonl", _refinement, lambda p, _: _Measured(Journal.read(p, REFINEMENT)), _LINES),
        FileFormat(
            "plan", "plan.json", lambda b: b.output("plan.json"), lambda p, _: read_plan(p), structures.json_value
        ),
        FileFormat(
            "baseline",
            "b.json",
            lambda b: b.output("baseline.json"),
            lambda p, _: _read_baseline(p, {}),
            structures.json_value,
        ),
        FileFormat(
            "manifest", "m.json", lambda b: b.output("manifest.json"), _manifest, structures.indented_json, _resealed
        ),
        FileFormat(
            "engine manifest",
            "m.json",
            lambda b: [b.built.read_bytes()],
            _engine_manifest,
            structures.indented_json,
            _resealed,
            share=0.3,
        ),
        FileFormat("configuration", "c.toml", _configs, _config, structures.toml_table),
        FileFormat("recipe", "r.toml", _recipes, lambda p, _: read_recipe(str(p)), structures.toml_table),
        FileFormat("device", "d.toml", _cards, _card, structures.toml_table),
        FileFormat(
            "CSV of latencies",
            "l.csv",
            lambda _: [LATENCIES.encode()],
            lambda p, _: _solved(p, _beside(p, "i.csv", IMPORTANCES)),
            _TABLE,
        ),
        FileFormat(
            "CSV of importances",
            "i.csv",
            lambda _: [IMPORTANCES.encode()],
            lambda p, _: _solved(_beside(p, "l.csv", LATENCIES), p),
            _TABLE,
        ),
        FileFormat("CSV of stage one", "l.csv", lambda _: [LATENCIES.encode()], _depth, _TABLE),
        FileFormat("CSV of convolutions", "c.csv", lambda _: [CONVOLUTIONS.encode()], _convolutions, _TABLE),
        FileFormat("ONNX, before it is run", "m.onnx", _onnx_samples, _onnx_gate, _MODEL),
        FileFormat("ONNX, imported and run", "m.onnx", _onnx_samples, _ran, _MODEL, apart=try_onnx, share=0.2),
        FileFormat("ONNX, built", "m.onnx", _onnx_samples, _built, _MODEL, apart=try_model, share=0.2),
        FileFormat("engine of ONNX Runtime", "e.onnx", lambda b: b.output("*.engine.onnx"), _engine, _MODEL, share=0.2),
        FileFormat("engine of TensorRT-RTX", "e.engine", _plan_of_rtx, _rtx),
        FileFormat(
            "timing cache",
            "c.timing",
            lambda _: [b'DOUBLE TIMING CACHE\n{"version": "11.4.0.106", "entries": {}}'],
            _cached,
            share=0.3,
        ),
        FileFormat(
            "recorded inputs and outputs",
            "c.safetensors",
            lambda b: b.output("checks.*"),
            _checks,
            structures.safetensors_file,
        ),
        FileFormat(
            "checkpoint",
            "c.safetensors",
            lambda b: b.output("*.checkpoint.*"),
            _checkpoint,
            structures.checkpoint_file,
            _checkpoint_resealed,
        ),
        FileFormat(
            "start of training", "s.safetensors", lambda b: _safetensors(b)[:1], _start, structures.safetensors_file
        ),
        FileFormat("weights, safetensors", "w.safetensors", _safetensors, _weights, structures.safetensors_file),
        FileFormat("weights, state dict", "w.pth", _saved, _weights, structures.zip_archive),
        FileFormat("folder of images", "image", _images, _image_folder, share=0.5),
        FileFormat(
            "CIFAR-10",
            "data_batch_1.bin",
            lambda _: [bytes(range(10)) * (4 * CIFAR_RECORD // 10) + bytes(2)],
            _cifar,
            share=0.5,
        ),
    )
}
