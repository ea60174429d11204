"""The readers that the commands use, and what they do with what was read."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from PIL import Image

from tests.fuzz import samples
from tests.fuzz.bench import Bench
from trt_layermerge.cli.commands.build import _shapes as shapes_of
from trt_layermerge.cli.main import main
from trt_layermerge.cli.shown_trtexec import show_trtexec_export
from trt_layermerge.delivery.delivery_signature import read_public_key, read_signing_key, signature_path
from trt_layermerge.delivery.engine_manifest import is_engine_manifest
from trt_layermerge.delivery.engines import verify_built
from trt_layermerge.delivery.manifest import Manifest, read_manifest
from trt_layermerge.delivery.verification import _compare, _read_checks
from trt_layermerge.errors import ExitCode, InputError
from trt_layermerge.estimation.device_files import read_card
from trt_layermerge.estimation.latency_model import LatencyModel
from trt_layermerge.estimation.workload import Workload
from trt_layermerge.latency.convolution_rows import read_convolutions
from trt_layermerge.latency.profile import Profile
from trt_layermerge.latency.recalibration import read_measured
from trt_layermerge.network.onnx_import.size_limits import require_bounded
from trt_layermerge.network.source import try_onnx
from trt_layermerge.network.weights_file import load_weights
from trt_layermerge.onnxfile import read_onnx
from trt_layermerge.pipeline.training import _start_from_the_same
from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.methods.registry import method_named
from trt_layermerge.planning.tabulated import fastest_intervals, problem_from_tables
from trt_layermerge.regression.comparable import compare_files
from trt_layermerge.regression.printing import comparison_fields, comparison_lines
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.graph_precision import graph_precision
from trt_layermerge.runtimes.nvidia import timing_cache
from trt_layermerge.runtimes.nvidia.rtx_plan import convolution_precisions, moving_kernels, read_header
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.training.checked_task import CheckedTask
from trt_layermerge.training.checkpoint import Checkpoint
from trt_layermerge.training.datasets import CIFAR_RECORD, Settings, cifar10, image_folder
from trt_layermerge.training.unlabelled.arrays import Arrays
from trt_layermerge.training.unlabelled.comparing import Comparing
from trt_layermerge.training.unlabelled.image_files import ImageFiles
from trt_layermerge.training.unlabelled.load_unlabelled import unlabelled
from trt_layermerge.training.unlabelled.preprocessing import Preprocessing


def profile(path: Path, bench: Bench) -> None:
    profile = Profile.read(path)
    with contextlib.suppress(InputError):
        read_measured(path)
    found = compare_files(
        bench.profile if profile.key == Profile.read(bench.profile).key else path, path, 0.05, None, ()
    )
    list(comparison_lines(found))
    json.dumps(comparison_fields(found))


def measured_profile(path: Path, _: Bench) -> None:
    read_measured(path)


def manifest(path: Path, bench: Bench) -> None:
    assert isinstance(read_manifest(path), Manifest)
    found = compare_files(bench.job.output / "manifest.json", path, 0.05, 1.0, ("runtime_version",))
    list(comparison_lines(found))
    json.dumps(comparison_fields(found))


def signed_manifest(path: Path, bench: Bench) -> None:
    """The signature of a manifest that is right."""
    manifest = path.with_name("m.json")
    manifest.write_bytes(bench.built.read_bytes())
    signature_path(manifest).write_bytes(path.read_bytes())
    (path.parent / "key.pem").write_bytes(samples.public_keys()[0])
    read_public_key(path.parent / "key.pem").require_signature(manifest, manifest.read_bytes())


def public_key(path: Path, _: Bench) -> None:
    read_public_key(path)


def private_key(path: Path, _: Bench) -> None:
    path.chmod(0o600)
    assert len(read_signing_key(path, lambda: samples.PASSWORD).sign(b"x")) == 64


def report_of_the_doctor(path: Path, _: Bench) -> None:
    """A stranger's, perhaps: what it prints moves no cursor."""
    out, err, refused = io.StringIO(), io.StringIO(), False
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["doctor", "--replay", str(path)])
        except SystemExit as stop:
            refused = stop.code == int(ExitCode.BAD_INPUT) and "Traceback" not in err.getvalue()
            if not refused:
                raise AssertionError(f"exit code {stop.code}: {err.getvalue()[:500]}") from None
    for said in (out, err):
        assert said.getvalue().replace("\n", "").isprintable(), "an escape is printed"
    if refused:
        raise InputError(err.getvalue().strip())
    assert out.getvalue().strip(), "nothing is printed"


def engine_manifest(path: Path, bench: Bench) -> None:
    for name in ("small.onnx", "small.engine.onnx"):
        (path.parent / name).write_bytes((bench.built.parent / name).read_bytes())
    is_engine_manifest(path)
    verify_built(path)


def configuration(path: Path, _: Bench) -> None:
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


def card(path: Path, _: Bench) -> None:
    card = read_card(str(path))
    LatencyModel(card).convolutions(
        [Workload(1, 64, 64, 56, 56, (3, 3)), Workload(8, 32, 32, 14, 14, (3, 3), groups=32)]
    )
    LatencyModel(card).engine_run()


def solved(latency: Path, importance: Path) -> None:
    frontier = solve(problem_from_tables(method_named("joint", {}), latency, importance), None)
    frontier.best(frontier.problem.original_ns)


def beside(path: Path, name: str, text: str) -> Path:
    other = path.with_name(name)
    other.write_text(text)
    return other


def depth(path: Path, _: Bench) -> None:
    method: Any = method_named("depth", {})
    fastest_intervals(method, path)


def trtexec_export(path: Path, _: Bench) -> None:
    """As ``profile show`` tells it, to people and to programs."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        click.Context(click.Command("show")),
    ):  # where print_json finds stdout
        for as_json in (False, True):
            show_trtexec_export(path, everything=True, as_json=as_json)


def convolutions(path: Path, _: Bench) -> None:
    rows = read_convolutions(path)
    rows.csv(rows.estimates(read_card("rtx-2080-ti")))
    with contextlib.suppress(InputError):
        rows.measurements()


def onnx_gate(path: Path, _: Bench) -> None:
    require_bounded(read_onnx(path), str(path))


def ran(path: Path, _: Bench) -> None:
    try_onnx(str(path))


def built(path: Path, _: Bench) -> None:
    """As ``build`` does it, by the runtime that is all Python."""
    graph = read_onnx(path)
    graph_precision(graph)
    get_runtime("estimate:rtx-2080-ti").build(path, BuildOptions(), shapes_of(graph, 8))


def engine(path: Path, bench: Bench) -> None:
    get_runtime("onnxruntime").load(path, BuildOptions())


def checks(path: Path, bench: Bench) -> None:
    inputs, outputs = _read_checks(path, bench.delivered)
    _compare(bench.delivered, inputs, outputs, "fp32", "the recorded outputs of the PyTorch network")


def checkpoint(path: Path, _: Bench) -> None:
    found = Checkpoint.read(path)
    found.require(found.identity, path)


def start(path: Path, bench: Bench) -> None:
    network: Any = samples.network()
    _start_from_the_same(network, path)


def weights(path: Path, _: Bench) -> None:
    load_weights(samples.network(), path)


def rtx_plan(path: Path, _: Bench) -> None:
    read_header(path)
    convolution_precisions(path.read_bytes())
    moving_kernels(path.read_bytes())


def cached_timings(path: Path, _: Bench) -> None:
    from tests.doubles.fixtures import replaced

    with replaced(path.parent):
        import tensorrt as trt

        config: Any = trt.Builder(trt.Logger()).create_builder_config()
        timing_cache.read_into(path, config)
        timing_cache.save(path, config)


def images_by_class(path: Path, bench: Bench) -> None:
    for part in ("train", "val"):
        for name in ("bright", "dark"):
            folder = path.parent / part / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "x.png").write_bytes(path.read_bytes() if name == "dark" else _GOOD)
    task = CheckedTask(replace(image_folder(path.parent, Settings(8, 2)), workers=0))
    for batches in (task.test_batches(), task.training_batches(seed=0, epoch=0)):
        list(batches)


_GOOD = samples.images()[0]


def cifar(path: Path, _: Bench) -> None:
    for name in ("data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        (path.parent / f"{name}.bin").write_bytes(bytes(CIFAR_RECORD) * 4)
    task = CheckedTask(cifar10(path.parent, Settings(batch_size=4)))
    list(task.training_batches(seed=0, epoch=0))


def unlabelled_array(path: Path, _: Bench) -> None:
    unlabelled(path, Comparing())
    _read_all(Arrays.of_file(path, Preprocessing()), 40)


def _read_all(samples: Arrays | ImageFiles, count: int) -> None:
    assert samples.in_words and len(samples.digests) <= count
    for index in range(len(samples.digests)):
        samples.read(index)


def unlabelled_images(path: Path, _: Bench) -> None:
    folder = path.parent / "images"
    folder.mkdir(exist_ok=True)
    for number in range(8):
        image = Image.new("RGB", (12, 10), (number, 0, 0))
        image.save(folder / f"{number}.png")
    (folder / "other.png").write_bytes(path.read_bytes())
    steps = Preprocessing(resize=(8, 8))
    unlabelled(folder, Comparing(steps))
    _read_all(ImageFiles.below(folder, steps), 9)
