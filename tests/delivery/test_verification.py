from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.manifest import read_manifest
from trt_layermerge.delivery.verification import (
    engine_outputs,
    run_engine,
    verify_delivery,
    verify_engine,
    write_checks,
)
from trt_layermerge.errors import ExitCode, IncompatibleError, InputError, LayerMergeError, VerificationError
from trt_layermerge.network.inputs import Input, as_tuple, batched_shapes, examples
from trt_layermerge.network.outputs import output_names
from trt_layermerge.network.trace import normal_form
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.ort.ort_runtime import OnnxRuntime

Deliver = Callable[..., None]
FILES = ["network.onnx", "engine.onnx", "checks.safetensors"]


def failure(folder: Path) -> LayerMergeError:
    with pytest.raises(LayerMergeError) as caught:
        verify_delivery(folder / "manifest.json")
    return caught.value


def test_what_was_delivered_is_verified(delivered: Path) -> None:
    found = verify_delivery(delivered / "manifest.json")
    assert (found.files, found.samples) == (3, 10) and 0 <= found.engine < 1e-5
    assert found.manifest == read_manifest(delivered / "manifest.json")


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_anywhere_is_found(delivered: Path, name: str) -> None:
    content = (delivered / name).read_bytes()
    for position in (0, len(content) // 2, len(content) - 1):
        flipped = bytearray(content)
        flipped[position] ^= 1
        (delivered / name).write_bytes(flipped)
        error = failure(delivered)
        assert error.exit_code is ExitCode.PROOF_FAILED and f"{name} is not the file that was delivered" in str(error)
    (delivered / name).write_bytes(content[:-1])
    assert isinstance(failure(delivered), VerificationError)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(delivered: Path, name: str) -> None:
    (delivered / name).unlink()
    error = failure(delivered)
    assert isinstance(error, InputError) and f"{name} is missing" in str(error)
    (delivered / name).mkdir()
    assert failure(delivered).exit_code is ExitCode.BAD_INPUT


@pytest.mark.parametrize("field", ["name", "runtime_version"])
def test_an_engine_for_something_else_is_refused(delivered: Path, deliver: Deliver, field: str) -> None:
    device = asdict(OnnxRuntime().describe(BuildOptions()))
    deliver(delivered, device=device | {field: "another"})
    error = failure(delivered)
    assert isinstance(error, IncompatibleError) and error.exit_code == 9
    assert f"{field}: another, here {device[field]}" in str(error) and f"{delivered}/network.onnx --batch 4" in str(
        error
    )


@pytest.mark.parametrize(("runtime", "code"), [("tensorrt", 6), ("onnx-runtime", 3)])
def test_a_runtime_that_is_not_here_is_told(delivered: Path, deliver: Deliver, runtime: str, code: int) -> None:
    deliver(delivered, device=asdict(OnnxRuntime().describe(BuildOptions())) | {"runtime": runtime})
    assert failure(delivered).exit_code == code


def test_threads_and_clocks_of_another_machine_do_not_matter(delivered: Path, deliver: Deliver) -> None:
    device = asdict(OnnxRuntime().describe(BuildOptions())) | {"threads": 2, "clocks": "fixed", "timing": "another"}
    deliver(delivered, device=device)
    assert verify_delivery(delivered / "manifest.json").samples == 10


def test_an_engine_of_another_network_is_found(delivered: Path, deliver: Deliver, build: Any) -> None:
    torch.manual_seed(7)
    build(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)), delivered)
    deliver(delivered)
    error = failure(delivered)
    assert error.exit_code == 5 and "differs from the recorded outputs" in str(error)
    build(nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 1)), delivered)
    deliver(delivered)
    assert failure(delivered).exit_code == 5, "[10, 1] is not compared with [10, 5] by repeating it"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_wrong_or_endless_recorded_outputs_are_found(delivered: Path, deliver: Deliver, value: float) -> None:
    outputs = torch.zeros(10, 5)
    outputs[3, 2] = value
    write_checks(delivered / "checks.safetensors", ["input"], torch.zeros(10, 2, 6, 6), outputs)
    deliver(delivered)
    assert failure(delivered).exit_code == 5


def test_recorded_inputs_are_found_by_their_names(delivered: Path, deliver: Deliver) -> None:
    """Whatever their order; and an engine that wants others is not given these."""

    class Both(nn.Module):
        def forward(self, image: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return image * time[:, None, None, None]

    inputs = (Input("image", (2, 6, 6)), Input("time", (), below=9))
    given = examples(inputs, 10)
    export_onnx(Both(), inputs, delivered / "network.onnx")
    OnnxRuntime().build(delivered / "network.onnx", BuildOptions(), batched_shapes(inputs, 4)).save(
        delivered / "engine.onnx"
    )
    checks = delivered / "checks.safetensors"
    write_checks(checks, ["time", "image"], given[::-1], Both()(*given))
    assert load_file(checks).keys() == {"inputs.image", "inputs.time", "outputs"}
    deliver(delivered)
    found = verify_delivery(delivered / "manifest.json")
    assert (found.samples, found.engine) == (10, 0)
    write_checks(checks, ["image", "noise"], given, Both()(*given))
    deliver(delivered)
    error = failure(delivered)
    assert error.exit_code == 3 and "inputs.time" in str(error)
    write_checks(checks, ["image"], given[0], Both()(*given))
    deliver(delivered)
    assert failure(delivered).exit_code == 3


def test_each_of_several_outputs_is_compared_on_its_own_scale(delivered: Path, deliver: Deliver) -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"large": 1e6 * x, "small": x.mean((2, 3))}

    module = normal_form(nn.Sequential(nn.Conv2d(2, 2, 1), Two()), (2, 6, 6))
    x = torch.randn(10, 2, 6, 6)
    export_onnx(module, (2, 6, 6), delivered / "network.onnx")
    engine = OnnxRuntime().build(delivered / "network.onnx", BuildOptions(), {"input": (4, 2, 6, 6)})
    engine.save(delivered / "engine.onnx")
    error, outputs = verify_engine(engine, module, x)
    assert error < 1e-5 and [value.shape for value in as_tuple(outputs)] == [(10, 2, 6, 6), (10, 2)]
    checks, names = delivered / "checks.safetensors", output_names(module)
    write_checks(checks, ["input"], x, outputs, names)
    assert load_file(checks).keys() == {"inputs", "outputs.large", "outputs.small"}
    deliver(delivered)
    assert verify_delivery(delivered / "manifest.json").samples == 10
    large, small = as_tuple(outputs)
    write_checks(checks, ["input"], x, (large, small * 1.001), names)  # nothing to the largest output of all
    deliver(delivered)
    error_ = failure(delivered)
    assert error_.exit_code == 5 and "'small'" in str(error_)
    write_checks(checks, ["input"], x, large)
    deliver(delivered)
    assert failure(delivered).exit_code == 3


def test_checks_without_tensors_are_refused(delivered: Path, deliver: Deliver) -> None:
    (delivered / "checks.safetensors").write_bytes(b"nothing of the kind")
    deliver(delivered)
    assert failure(delivered).exit_code == 3


def test_an_engine_that_is_no_model_is_refused(delivered: Path, deliver: Deliver) -> None:
    (delivered / "engine.onnx").write_bytes(b"nothing of the kind")
    deliver(delivered)
    assert failure(delivered).exit_code == 3


class Doubling:
    """An engine of a fixed batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.inputs, self.outputs = {"input": (batch, 3)}, {"output": (batch, 3)}

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        assert feeds["input"].shape == (self.batch, 3) and feeds["input"].flags["C_CONTIGUOUS"]
        return {"output": 2 * feeds["input"]}


@given(batch=st.integers(1, 9), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_any_number_of_inputs_goes_through_an_engine_of_any_batch(batch: int, sizes: list[int]) -> None:
    data = [(torch.randn(3, size).T, torch.arange(size)) for size in sizes]  # not contiguous
    engine: Any = Doubling(batch)
    outputs = list(engine_outputs(engine, data))
    assert all(torch.equal(out, 2 * inputs) for (out, _), (inputs, _) in zip(outputs, data, strict=True))
    assert all(target is given for (_, target), (_, given) in zip(outputs, data, strict=True))
    assert run_engine(engine, data[0][0]).shape == data[0][0].shape


def test_engines_and_networks_are_compared_in_evaluation_mode() -> None:
    class Halfway(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 3 * x if self.training else 2 * x

    error, outputs = verify_engine(Doubling(4), Halfway().train(), torch.ones(6, 3))  # type: ignore[arg-type]
    assert error == 0 and torch.equal(outputs, 2 * torch.ones(6, 3))
    with pytest.raises(VerificationError, match=r"differs from the PyTorch network by 3\.3e-01"):
        verify_engine(Doubling(4), nn.Threshold(9.0, 3.0), torch.ones(6, 3))  # type: ignore[arg-type]
    odd: Any = SimpleNamespace(inputs={"x": (1, 3)}, outputs={"y": (1, 3)}, run=np.zeros)
    with pytest.raises(VerificationError, match="takes x and gives y"):
        verify_engine(odd, nn.Identity(), torch.ones(6, 3))
