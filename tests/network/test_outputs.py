"""What a network returns, whatever holds it: by order and name."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from tests.network.onnx_import.models import make
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.verification import run_outputs, verify_engine
from trt_layermerge.errors import ModelError
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.network.inputs import batched_shapes
from trt_layermerge.network.network import load_network, trace
from trt_layermerge.network.outputs import named_outputs, output_names
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.ort.ort_runtime import OnnxRuntime

Both = namedtuple("Both", "scores features")


@dataclasses.dataclass
class Result:
    scores: Tensor
    loss: Tensor | None = None
    features: Tensor | None = None


class Mapped(OrderedDict[str, Any]):
    pass


class Returning(nn.Module):
    def __init__(self, hold: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.head, self.hold = nn.Linear(8, 4), hold

    def forward(self, x: Tensor) -> Any:
        features = self.body(x)
        return self.hold(self.head(features.mean((2, 3))), features)


ONE: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "a tensor": (lambda y, _: y, "output"),
    "a tuple": (lambda y, _: (y,), "output"),
    "a tuple with nothing": (lambda y, _: (y, None), "output"),
    "a list in a tuple": (lambda y, _: ([y],), "output"),
    "a dict": (lambda y, _: {"out": y}, "out"),
    "a dict with nothing": (lambda y, _: {"loss": None, "scores": y}, "scores"),
    "a dataclass": (lambda y, _: Result(y), "scores"),
}

SEVERAL: dict[str, tuple[Callable[[Tensor, Tensor], Any], tuple[str, str]]] = {
    "a tuple": (lambda y, f: (y, f), ("output_0", "output_1")),
    "a list": (lambda y, f: [y, f], ("output_0", "output_1")),
    "a dict": (lambda y, f: {"scores": y, "features": f}, ("scores", "features")),
    "a dict, not in order": (lambda y, f: {"z": y, "a": f}, ("z", "a")),
    "a kind of dict": (lambda y, f: Mapped(scores=y, features=f), ("scores", "features")),
    "a named tuple": (lambda y, f: Both(y, f), ("scores", "features")),
    "a dataclass": (lambda y, f: Result(y, features=f), ("scores", "features")),
    "nested": (lambda y, f: {"scores": y, "levels": [f, None]}, ("scores", "levels.0")),
    "twice the same": (lambda y, _: (y, y), ("output_0", "output_1")),
}


@pytest.mark.parametrize(("hold", "name"), ONE.values(), ids=ONE.keys())
def test_one_tensor_in_anything_is_one_output(hold: Callable[[Tensor, Tensor], Any], name: str) -> None:
    torch.manual_seed(0)
    source = Returning(hold).eval()
    network = trace("net", source, (3, 8, 8))
    assert network.outputs == (name,)
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(network.module(x), source.head(source.body(x).mean((2, 3))))


@pytest.mark.parametrize(("hold", "names"), SEVERAL.values(), ids=SEVERAL.keys())
def test_several_outputs_are_exported_built_and_verified_by_name(
    hold: Callable[[Tensor, Tensor], Any], names: tuple[str, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    source = Returning(hold).eval()
    network = trace("net", source, (3, 8, 8))
    assert network.outputs == names and [len(chain) for chain in network.chains] == [2]
    folded, path = fold_norms(network.module), tmp_path / "net.onnx"
    assert output_names(folded) == names
    export_onnx(folded, network.inputs, path)
    assert tuple(value.name for value in onnx.load(path).graph.output) == names
    engine = OnnxRuntime().build(path, BuildOptions(), batched_shapes(network.inputs, 4))
    x = torch.randn(6, 3, 8, 8)
    error, outputs = verify_engine(engine, folded, x)
    assert error < 1e-5 and isinstance(outputs, tuple)
    with torch.no_grad():
        expected = named_outputs(source(x))
    found = run_outputs(engine, x)
    assert list(found) == list(expected) == list(names)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)


class Beside(Returning):
    """Returns an input, or a parameter, as it is or computed, beside what it computes of the input."""

    def __init__(self, of: Callable[[Any, Tensor], Any]) -> None:
        super().__init__(lambda y, _: y)
        self.of = of

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), self.of(self, x)


@pytest.mark.parametrize("of", [lambda m, x: x, lambda m, x: x[:]])
def test_an_input_may_be_an_output(of: Callable[[Any, Tensor], Any], tmp_path: Path) -> None:
    network = trace("net", Beside(of).eval(), (3, 8, 8))
    export_onnx(network.module, network.inputs, tmp_path / "net.onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["input", "output_0", "output_1"]
    engine = OnnxRuntime().build(tmp_path / "net.onnx", BuildOptions(), batched_shapes(network.inputs, 2))
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(run_outputs(engine, x)["output_1"], x)


@pytest.mark.parametrize("of", [lambda m, x: m.head.weight, lambda m, x: m.head.weight.exp()])
def test_what_no_input_decides_is_no_output(of: Callable[[Any, Tensor], Any]) -> None:
    with pytest.raises(ModelError, match="no tensor that depends on its input"):
        trace("net", Beside(of).eval(), (3, 8, 8))


@pytest.mark.parametrize(
    ("hold", "message"),
    [
        (lambda y, _: None, "returns no tensor"),
        (lambda y, _: {}, "returns no tensor"),
        (lambda y, _: (y, "name"), "returns no tensor alone, but 1 str"),
        (lambda y, f: {"scores": y, "loss": 0.5}, "returns no tensor alone, but loss float"),
        (lambda y, f: (y, y.argmax(1)), "returns torch.int64"),
    ],
)
def test_what_is_no_tensor_is_one_message(hold: Callable[[Tensor, Tensor], Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        trace("net", Returning(hold).eval(), (3, 8, 8))


def test_files_give_their_own_names(tmp_path: Path) -> None:
    weights = {"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    model = make(nodes, weights)
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "in.onnx")
    network = load_network(str(tmp_path / "in.onnx"))
    assert [item.name for item in network.inputs] == ["x"] and network.outputs == ("y", "z")
    export_onnx(network.module, network.inputs, tmp_path / "out.onnx")
    graph = onnx.load(tmp_path / "out.onnx").graph
    assert [value.name for value in graph.input] == ["x"] and [value.name for value in graph.output] == ["y", "z"]
