"""Networks as training scripts leave them: wrapped, compiled, in half."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import weight_norm
from torch.optim.swa_utils import AveragedModel

from trt_layermerge.errors import ModelError
from trt_layermerge.network.network import load_network, trace
from trt_layermerge.network.unwrap import unwrapped


def small() -> nn.Module:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(nn.Conv2d(3, 4, 3), inner, nn.Conv2d(4, 4, 1)).eval()


def compiled_inside() -> nn.Module:
    module = small()
    module[1] = torch.compile(module[1])
    return module


def compiled_in_place() -> nn.Module:
    module = small()
    module.compile()
    return module


def mixed() -> nn.Module:
    module = small()
    module[2].half()
    return module


WRAPPED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "parallel": (lambda: nn.DataParallel(small()), "taken out of DataParallel"),
    "compiled": (lambda: torch.compile(small()), "taken out of OptimizedModule"),
    "both": (
        lambda: nn.DataParallel(torch.compile(small())),
        "taken out of DataParallel, taken out of OptimizedModule",
    ),
    "averaged": (lambda: AveragedModel(small()), "taken out of AveragedModel"),
    "compiled inside": (compiled_inside, "1 taken out of OptimizedModule"),
    "compiled in place": (compiled_in_place, ""),
    "plain": (small, ""),
}

NARROW: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "half": (lambda: small().half(), "cast from float16 to float32"),
    "bfloat16": (lambda: small().bfloat16(), "cast from bfloat16 to float32"),
    "double": (lambda: small().double(), "cast from float64 to float32"),
    "in part": (mixed, "cast from float16 to float32"),
    "parallel and half": (lambda: nn.DataParallel(small().half()), "taken out of DataParallel, cast from float16"),
}


@pytest.mark.parametrize(("make", "note"), (WRAPPED | NARROW).values(), ids=(WRAPPED | NARROW).keys())
def test_it_is_the_network_inside_in_float32(make: Callable[[], nn.Module], note: str) -> None:
    source, plain = make(), small()
    before = copy.deepcopy(source.state_dict())
    network = trace("net", source, (3, 8, 8))
    assert ", ".join(network.notes).startswith(note) and bool(network.notes) == bool(note)
    assert network.module.state_dict().keys() == plain.state_dict().keys()
    assert {value.dtype for value in network.module.parameters()} == {torch.float32}
    x = torch.randn(3, 3, 8, 8)
    exact = not any("float16" in said for said in network.notes)
    with torch.no_grad():
        expected = plain(x) if exact else copy.deepcopy(unwrapped(source)[0])(x)
        torch.testing.assert_close(network.module(x), expected)
    assert source.state_dict().keys() == before.keys()
    assert all(source.state_dict()[name].dtype == value.dtype for name, value in before.items())


@pytest.mark.parametrize("end", ["", ".module()"])
def test_an_exported_program_is_a_network(end: str, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "import torch\nfrom torch import nn\nINPUT_SHAPE = (3, 8, 8)\n"
        "def model():\n    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)).eval()\n"
        "    shapes = ({0: torch.export.Dim.AUTO},)\n"
        f"    return torch.export.export(net, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=shapes){end}\n"
    )
    network = load_network(str(path))
    assert [layer.name for chain in network.chains for layer in chain.layers] == ["0", "2"]


def test_what_is_ours_is_changed_in_place() -> None:
    module = weight_norm(nn.Conv2d(3, 4, 3).half())  # holds a tensor that cannot be copied
    assert unwrapped(module, own=True) == (module, ("cast from float16 to float32",))
    assert module.weight_g.dtype == torch.float32


def test_it_is_said_when_a_network_is_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\nINPUT_SHAPE = (3, 8, 8)\n"
        "def net():\n    return nn.DataParallel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))).half()\n"
    )
    state = {f"module.{name}": value for name, value in load_network(f"{path}:net").module.state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "trt_layermerge"):
        network = load_network(f"{path}:net", tmp_path / "weights.pth")
    assert [record.getMessage().removeprefix(f"{path}:net: ") for record in caplog.records] == list(network.notes)
    assert len(network.notes) == 3 and "prefix 'module.' taken off" in network.notes[2]


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_lazy_layers_have_to_have_their_shapes() -> None:
    module = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())
    with pytest.raises(ModelError, match=r"without a shape: 0\.weight, 0\.bias, 1\.weight") as caught:
        unwrapped(module)
    assert "run it once in its factory" in str(caught.value.hint)
    module(torch.zeros(1, 3, 8, 8))
    assert unwrapped(module) == (module, ())
