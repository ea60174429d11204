"""A network that comes as ONNX has the chains, skips, breaks and choices that it has in PyTorch, and its outputs.

Every network is written by torch's exporter as delivery does, norms folded; without the exporter's optimiser, norms
kept; and for one image only. A new kind of network is one more line in ``NETWORKS``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.network.network import Network, load_network, trace
from trt_layermerge.network.source import load_source

ROOT = Path(__file__).parents[2]


class Net(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def unit(i: int, o: int, k: int = 3, act: type[nn.Module] = nn.ReLU6, **kwargs: Any) -> nn.Sequential:
    conv = nn.Conv2d(i, o, k, padding=kwargs.pop("padding", k // 2), bias=False, **kwargs)
    return nn.Sequential(conv, nn.BatchNorm2d(o), act())


def bottleneck(i: int, o: int, stride: int, act: type[nn.Module] = nn.ReLU6) -> nn.Module:
    body = nn.Sequential(
        unit(i, 3 * i, 1, act),
        unit(3 * i, 3 * i, 3, act, stride=stride, groups=3 * i),
        nn.Conv2d(3 * i, o, 1, bias=False),
        nn.BatchNorm2d(o),
    )
    return Net(lambda m, x: m.body(x) + x, body=body) if (i, stride) == (o, 1) else body


def mobilenet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head(F.dropout(F.adaptive_avg_pool2d(m.body(x), 1).flatten(1), 0.2, m.training))

    blocks = [unit(3, 8, stride=2), bottleneck(8, 8, 1), bottleneck(8, 12, 2), bottleneck(12, 12, 1), unit(12, 24, 1)]
    return Net(forward, body=nn.Sequential(*blocks), head=nn.Linear(24, 5))


def squeezed() -> nn.Module:
    """Squeeze and excitation, hardswish."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        weights = F.hardsigmoid(m.expand(F.relu(m.reduce(F.adaptive_avg_pool2d(x, 1)))))
        return m.tail(x * weights).mean((2, 3))

    parts = {"stem": unit(3, 8, 5, nn.Hardswish, stride=2), "tail": bottleneck(8, 8, 1, nn.Hardswish)}
    return Net(forward, **parts, reduce=nn.Conv2d(8, 4, 1), expand=nn.Conv2d(4, 8, 1))


def uneven() -> nn.Module:
    """TensorFlow's SAME padding; SiLU, GELU and Mish, which exporters write as arithmetic."""
    return nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)),
        unit(3, 8, 3, nn.SiLU, stride=2, padding=0),
        unit(8, 8, 3, nn.GELU),
        unit(8, 8, 1, nn.Mish),
        nn.Conv2d(8, 4, 3, padding=(1, 0)),
    )


def unet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        deep = m.low(F.max_pool2d(x := m.high(x), 2))
        return m.out(torch.cat([x, F.interpolate(deep, scale_factor=2.0, mode="bilinear")], 1))

    low = nn.Sequential(unit(6, 6, 3, nn.ReLU), nn.Conv2d(6, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.SiLU())
    return Net(forward, high=unit(3, 6, 3, nn.LeakyReLU), low=low, out=nn.Conv2d(12, 3, 3, padding=1))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "ResNet-20": lambda: (load_source(f"{ROOT / 'examples/fashion_mnist/model.py'}:resnet20").module, (1, 28, 28)),
    "MobileNetV2": lambda: (mobilenet(), (3, 32, 32)),
    "squeeze and excitation": lambda: (squeezed(), (3, 16, 16)),
    "uneven padding": lambda: (uneven(), (3, 16, 16)),
    "u-net": lambda: (unet(), (3, 16, 16)),
}

Case = tuple[nn.Module, Network]


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS.keys())
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    source, shape = request.param()
    for part in source.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.1)
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return source.eval(), trace("net", source, shape)


def as_delivered(source: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    export_onnx(source, shape, path)


def as_it_is(source: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    program = torch.onnx.export(
        source,
        (torch.zeros(2, *shape),),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        optimize=False,
        opset_version=18,
        verbose=False,
    )
    assert program is not None
    program.save(path)


def for_one_image(source: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    program = torch.onnx.export(source, (torch.zeros(1, *shape),), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    program.save(path)


@pytest.mark.parametrize("write", [as_delivered, as_it_is, for_one_image])
def test_it_is_the_network_that_it_was(case: Case, write: Callable[..., None], tmp_path: Path) -> None:
    source, expected = case
    path = tmp_path / "network.onnx"
    write(source, expected.input_shape, path)
    network = load_network(str(path))  # the file tells the input shape
    assert_same_chains(network, expected)
    assert network.input_shape == expected.input_shape
    assert_runs_as_in_runtime(network, path)


def assert_same_chains(network: Network, expected: Network) -> None:
    """Equal but for the names of nodes, and for norms that the exporter folded."""
    for ours, theirs in zip(network.layers, expected.layers, strict=True):
        for field in ("index", "name", "activation", "geometry", "bias", "input_shape", "output_shape"):
            assert getattr(ours, field) == getattr(theirs, field)
        assert len(ours.adds) == len(theirs.adds)
    skips, wanted = ([s for chain in net.chains for s in chain.skips] for net in (network, expected))
    for ours, theirs in zip(skips, wanted, strict=True):
        assert (ours.start, ours.end, ours.name, ours.geometry) == (
            theirs.start,
            theirs.end,
            theirs.name,
            theirs.geometry,
        )
    assert [item.after for item in network.breaks] == [item.after for item in expected.breaks]
    # Of regions an exporter's own operators make others: it writes a resize, or a padding, in other steps.
    here, there = (choices_of(one, Limits(regions=False)) for one in (network, expected))
    assert [choice.key for choice in here] == [choice.key for choice in there]


def assert_runs_as_in_runtime(network: Network, path: Path) -> None:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    batch = value.shape[0] if isinstance(value.shape[0], int) else 3
    x = torch.randn(batch, *network.input_shape)
    (output,) = session.run(None, {value.name: x.numpy()})
    with torch.no_grad():
        result = network.module(x).numpy()
        assert network.module(torch.randn(5, *network.input_shape)).shape[0] == 5
    np.testing.assert_allclose(result, output, rtol=1e-5, atol=1e-5 * np.abs(output).max())


# As torch's older exporter wrote it, with norms and numbered weights, and as it still lies on many disks


def older() -> onnx.ModelProto:
    random = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {
        "onnx::Conv_12": random.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "layers.1.weight": random.uniform(0.5, 1.5, 8).astype(np.float32),
        "layers.1.bias": random.standard_normal(8).astype(np.float32),
        "layers.1.running_mean": random.standard_normal(8).astype(np.float32),
        "layers.1.running_var": random.uniform(0.5, 1.5, 8).astype(np.float32),
        "onnx::Conv_15": random.standard_normal((8, 8, 3, 3)).astype(np.float32),
        "onnx::Conv_16": random.standard_normal(8).astype(np.float32),
        "head.weight": random.standard_normal((5, 8)).astype(np.float32),
        "head.bias": random.standard_normal(5).astype(np.float32),
    }
    norm = [f"layers.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "group": 1}
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "onnx::Conv_12"], ["1"], name="/layers/layers.0/Conv", **conv),
        node("BatchNormalization", ["1", *norm], ["2"], name="/layers/layers.1/BatchNormalization", momentum=0.8),
        node("Clip", ["2"], ["3"], min=0.0, max=6.0),
        node("Conv", ["3", "onnx::Conv_15", "onnx::Conv_16"], ["4"], name="/layers/layers.3/Conv", **conv),
        node("Sigmoid", ["4"], ["5"]),
        node("Mul", ["4", "5"], ["6"]),
        node("Add", ["6", "3"], ["7"]),
        node("GlobalAveragePool", ["7"], ["8"]),
        node("Shape", ["8"], ["9"]),
        node("Constant", [], ["10"], value=helper.make_tensor("", TensorProto.INT64, [], [0])),
        node("Gather", ["9", "10"], ["11"], axis=0),
        node("Unsqueeze", ["11"], ["12"], axes=[0]),
        node("Constant", [], ["13"], value=helper.make_tensor("", TensorProto.INT64, [1], [-1])),
        node("Concat", ["12", "13"], ["14"], axis=0),
        node("Reshape", ["8", "14"], ["15"]),
        node("Gemm", ["15", "head.weight", "head.bias"], ["16"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "torch-jit-export",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("16", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=6)


def older_source() -> nn.Module:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8, momentum=0.2),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.SiLU(),
    )

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.layers[:3](x)
        return m.head(F.adaptive_avg_pool2d(m.layers[3:](x) + x, 1).flatten(1))

    return Net(forward, layers=layers, head=nn.Linear(8, 5))


def test_an_older_file_is_the_same_network_too(tmp_path: Path) -> None:
    path = tmp_path / "older.onnx"
    onnx.save(older(), path)
    network = load_network(str(path), None, (3, 12, 10))  # which the file leaves open
    expected = trace("net", older_source(), (3, 12, 10))
    assert_same_chains(network, expected)
    assert [item.reason for item in network.breaks] == [item.reason for item in expected.breaks]
    assert_runs_as_in_runtime(network, path)
    assert network.module.state_dict().keys() == expected.module.state_dict().keys()
    norm = network.module.get_submodule("layers.1")
    assert isinstance(norm, nn.BatchNorm2d) and norm.momentum == pytest.approx(0.2)


def test_it_trains(tmp_path: Path) -> None:
    """Weights get gradients, norms go on collecting their statistics."""
    onnx.save(older(), tmp_path / "older.onnx")
    module = load_network(str(tmp_path / "older.onnx"), None, (3, 8, 8)).module.train()
    norm = module.get_submodule("layers.1")
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
    before = norm.running_mean.clone()
    module(torch.randn(4, 3, 8, 8)).square().mean().backward()
    assert not torch.equal(norm.running_mean, before)
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in module.parameters())
    assert {"layers.0.weight", "layers.3.bias", "head.weight"} <= dict(module.named_parameters()).keys()
