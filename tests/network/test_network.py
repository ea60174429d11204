from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from tests.network.onnx_import.models import make
from trt_layermerge.errors import ExitCode, ModelError, UsageError
from trt_layermerge.network.inputs import Input
from trt_layermerge.network.network import Network, load_network, trace

MODEL = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.py"
    path.write_text(MODEL)
    return path


def test_the_input_shape_must_come_from_somewhere(file: Path) -> None:
    with pytest.raises(UsageError, match=r"input shape of .*small.py is not known") as caught:
        load_network(str(file))
    assert caught.value.exit_code == ExitCode.USAGE and "--input" in str(caught.value)
    assert load_network(str(file), None, (3, 9, 9)).input_shape == (3, 9, 9)
    file.write_text(f"{MODEL}\nINPUT_SHAPE = [3, 8, 8]\n")
    assert load_network(str(file)).input_shape == (3, 8, 8)
    assert load_network(str(file), None, (3, 9, 9)).input_shape == (3, 9, 9)  # what is asked for goes first


def test_weights_are_those_of_the_checkpoint(file: Path, tmp_path: Path) -> None:
    state = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)).state_dict()
    torch.save(state, tmp_path / "weights.pt")
    network = load_network(str(file), tmp_path / "weights.pt", (3, 8, 8))
    torch.testing.assert_close(dict(network.module.state_dict()), dict(state), rtol=0, atol=0)
    assert [layer.name for layer in network.layers] == ["0", "2"]


def test_the_hash_is_of_names_and_numbers() -> None:
    torch.manual_seed(0)
    source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    same, other = trace("a", source, (3, 8, 8)), trace("b", source, (3, 9, 9))
    assert same.weights_hash == other.weights_hash and len(same.weights_hash) == 64
    with torch.no_grad():
        source[1].running_mean[0] += 1e-6
    assert trace("a", source, (3, 8, 8)).weights_hash != same.weights_hash


def test_the_hash_of_an_onnx_file_is_of_all_that_it_computes(tmp_path: Path) -> None:
    """Two files of equal weights differ where they compute something else with them; a copy does not."""
    weights = {"conv.weight": np.ones((4, 3, 3, 3), np.float32)}

    def saved(name: str, activation: str) -> Network:
        conv = helper.make_node("Conv", ["x", "conv.weight"], ["c"])
        model = make([conv, helper.make_node(activation, ["c"], ["y"])], weights)
        onnx.save(model, tmp_path / name)
        return load_network(str(tmp_path / name))

    first, copy, other = saved("a.onnx", "Relu"), saved("b.onnx", "Relu"), saved("c.onnx", "HardSwish")
    assert first.weights_hash == copy.weights_hash != other.weights_hash
    weights["conv.weight"] = weights["conv.weight"] + 1
    assert saved("d.onnx", "Relu").weights_hash != first.weights_hash


SEVERAL = """
from torch import nn
INPUTS = {"sample": (3, 8, 8), "timestep": 10}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.embedding = nn.Conv2d(3, 4, 3), nn.Embedding(10, 4)
    def forward(self, sample, timestep):
        return self.conv(sample) + self.embedding(timestep)[:, :, None, None]
model = Net
"""


def test_several_inputs_are_declared_beside_the_factory(file: Path) -> None:
    file.write_text(SEVERAL)
    network = load_network(str(file))
    assert network.inputs == (Input("sample", (3, 8, 8)), Input("timestep", (), below=10))
    (layer,) = network.layers
    assert layer.shift is not None and network.input_shape == (3, 8, 8)
    larger = load_network(str(file), None, (3, 12, 9))  # the shape that is asked for is the first one's
    assert [item.shape for item in larger.inputs] == [(3, 12, 9), ()]
    steps = torch.tensor([0, 9, 9])
    torch.testing.assert_close(network.module(torch.ones(3, 3, 8, 8), steps)[1:].diff(dim=0), torch.zeros(1, 4, 6, 6))


def test_other_inputs_than_forward_takes_are_one_message(file: Path) -> None:
    file.write_text(SEVERAL.replace(', "timestep": 10', ""))
    with pytest.raises(ModelError, match=r"cannot trace Net for an input of \(2, 3, 8, 8\)") as caught:
        load_network(str(file))
    assert "INPUTS" in str(caught.value)


def test_a_trunk_that_several_inputs_share_is_better_given_alone() -> None:
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return self.trunk(left) - self.trunk(right)

    with pytest.raises(ModelError, match="weights are shared") as caught:
        trace("siamese", Siamese(), [Input(name, (3, 8, 8)) for name in ("left", "right")])
    assert str(caught.value).count("trunk.0") == 1 and "as a network by itself" in str(caught.value.hint)
