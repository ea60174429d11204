from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, fx, nn

from trt_layermerge.delivery.export import INPUT, OUTPUT, export_onnx
from trt_layermerge.errors import ModelError
from trt_layermerge.network.inputs import Input
from trt_layermerge.network.outputs import name_outputs
from trt_layermerge.onnxfile import OPSET


def test_any_batch_gives_what_the_network_gives(delivered: Path, network: nn.Module) -> None:
    session = onnxruntime.InferenceSession(delivered / "network.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 2, 7):
        inputs = torch.randn(batch, 2, 6, 6)
        (output,) = session.run([OUTPUT], {INPUT: inputs.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(output, network(inputs).numpy(), atol=1e-6)


def test_the_file_is_whole_and_of_the_opset(delivered: Path) -> None:
    model = onnx.load(delivered / "network.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert {item.version for item in model.opset_import if item.domain in ("", "ai.onnx")} == {OPSET}
    assert [value.name for value in model.graph.input] == [INPUT]
    assert [value.name for value in model.graph.output] == [OUTPUT]
    assert all(weight.data_location != onnx.TensorProto.EXTERNAL for weight in model.graph.initializer)
    assert sorted(path.name for path in delivered.iterdir() if "network" in path.name) == ["network.onnx"]


def test_nothing_is_printed_and_logging_is_as_before(
    tmp_path: Path, network: nn.Module, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.INFO)
    export_onnx(network, (2, 6, 6), tmp_path / "n.onnx")
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.INFO


def test_ends_keep_names_that_torch_gives_to_values_inside(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3)).eval()
    module = fx.symbolic_trace(network)
    name_outputs(module, ("conv2d",))  # as torch calls the first convolution, and keras the head of MTCNN's P-Net
    export_onnx(module, [Input("relu", (2, 6, 6))], tmp_path / "n.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "n.onnx", providers=["CPUExecutionProvider"])
    inputs = torch.randn(3, 2, 6, 6)
    (output,) = session.run(["conv2d"], {"relu": inputs.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(output, network(inputs).numpy(), atol=1e-6)


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


def test_what_cannot_be_expressed_is_told_in_a_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^the network cannot be written as ONNX: [^\n]+\n  hint: "):
        export_onnx(Undecided(), (2, 6, 6), tmp_path / "n.onnx")
    assert list(tmp_path.iterdir()) == []


class OfEachSample(nn.Module):
    """Has a filter for each sample, which is a number of groups that ONNX cannot leave open."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, *_ = x.shape
        filters = x.mean((2, 3)).reshape(batch * channels, 1, 1, 1)
        return nn.functional.conv2d(x.reshape(1, -1, *x.shape[2:]), filters, groups=batch * channels).reshape(x.shape)


def test_the_operator_that_stands_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"cannot be written as ONNX: .*\(at torch.ops.aten.conv2d.default\)\n"
    ) as caught:
        export_onnx(OfEachSample(), (2, 6, 6), tmp_path / "n.onnx")
    assert "groups" in str(caught.value.hint)


class NearlyNeutral(nn.Module):
    """Adds what keeps a logarithm finite, and has other constants that are next to nothing, or to 1."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        positive = x.relu()
        return torch.log(positive + 1e-10), 1e9 * (x - 5e-9), 1e5 * (x * (1 + 8e-6) / (1 - 8e-6) - x)


def test_constants_that_are_nearly_neutral_are_kept(tmp_path: Path) -> None:
    module, inputs = NearlyNeutral().eval(), torch.tensor([-1.0, 0.0, 1e-3, 0.5]).view(1, 1, 2, 2)
    export_onnx(module, (1, 2, 2), tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    for actual, expected in zip(session.run(None, {INPUT: inputs.numpy()}), module(inputs), strict=True):
        np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-5, atol=1e-1)


def test_constants_that_are_neutral_are_dropped(tmp_path: Path) -> None:
    class Neutral(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 1.0 + 0.0).relu()

    export_onnx(Neutral().eval(), (1, 2, 2), tmp_path / "neutral.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "neutral.onnx").graph.node] == ["Relu"]
