from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from trt_layermerge.errors import ExitCode, ModelError
from trt_layermerge.network.inputs import Input
from trt_layermerge.network.source import load_source
from trt_layermerge.network.weights_file import load_weights


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def fails(action: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        action()
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    return str(caught.value)


# Specs


def test_torchvision() -> None:
    source = load_source("torchvision:squeezenet1_1")
    assert source.input_shape == (3, 224, 224) and not source.module.training
    assert source.spec == "torchvision:squeezenet1_1"


def test_timm() -> None:
    assert load_source("timm:test_vit").input_shape == (3, 160, 160)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:resnet43", "torchvision has no model 'resnet43'\n  hint: did you mean resnet"),
        ("torchvision:fasterrcnn_resnet50_fpn", "torchvision has no model"),  # would download a backbone
        ("torchvision:", "torchvision has no model ''"),
        ("timm:mobilnetv2_100", "did you mean mobilenetv2_100"),
        ("timm:qqqqqqq", "documentation lists its models"),
        ("resnet34", "cannot understand the model spec 'resnet34'\n  hint: write torchvision:NAME"),
        ("", "cannot understand the model spec"),
        ("some/path:model", "cannot understand the model spec"),
        ("no_such_package.models:net", "cannot import no_such_package.models: ModuleNotFoundError"),
        ("no/such/file.py:net", "there is no model file no/such/file.py"),
        ("torch.nn:Convv2d", "torch.nn has no function 'Convv2d'\n  hint: did you mean Conv2d"),
    ],
)
def test_specs_that_name_nothing(spec: str, message: str) -> None:
    assert message in fails(lambda: load_source(spec))


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_library_that_is_not_there(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)
    assert f"pip install {library}" in fails(lambda: load_source(f"{library}:resnet18"))


def test_a_factory_in_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("ourmodels")
    module.net, module.INPUT_SHAPE = small, (3, 8, 8)
    monkeypatch.setitem(sys.modules, "ourmodels", module)
    source = load_source("ourmodels:net")
    assert isinstance(source.module, nn.Sequential) and source.input_shape == (3, 8, 8)


def test_a_factory_with_several_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("ourmodels")
    module.net, module.INPUTS = small, {"sample": (3, 8, 8), "timestep": 1000, "scale": ()}
    monkeypatch.setitem(sys.modules, "ourmodels", module)
    source = load_source("ourmodels:net")
    assert source.inputs == (Input("sample", (3, 8, 8)), Input("timestep", (), below=1000), Input("scale", ()))


def test_a_factory_in_a_file_beside_others(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("from torch import nn\nWIDTH = 7\n")
    path = tmp_path / "net.py"
    path.write_text("from beside_it import WIDTH, nn\ndef model():\n    return nn.Conv2d(3, WIDTH, 1)\nwide = model\n")
    before = list(sys.path)
    for spec in (str(path), f"{path}:wide"):
        source = load_source(spec)
        assert isinstance(source.module, nn.Conv2d) and source.module.out_channels == 7 and source.input_shape is None
    assert sys.path == before
    assert "has no function 'wyde'\n  hint: did you mean wide" in fails(lambda: load_source(f"{path}:wyde"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def model(:\n", "SyntaxError: invalid syntax ({path}, line 1)"),
        ("\nimport no_such_thing\n", "ModuleNotFoundError: No module named 'no_such_thing' ({path}, line 2)"),
        ("\n\nraise SystemExit(3)\n", "it ends the process, with SystemExit: 3 ({path}, line 3)"),
        (
            "def model():\n    return 1 / 0\n",
            "cannot run {path}: ZeroDivisionError: division by zero ({path}, line 2)",
        ),
        ("def model(width):\n    pass\n", "TypeError: model() missing 1 required positional argument"),
        ("def model():\n    return 'net'\n", "{path} returned str, not a torch.nn.Module"),
        ("model = 3\n", "has no function 'model'\n  hint: it defines none"),
        ("from torch.nn import Identity as model\nINPUT_SHAPE = 28, 'x'\n", "INPUT_SHAPE of {path} is (28, 'x')"),
        ("from torch.nn import Identity as model\nINPUT_SHAPE = 28\n", "hint: write INPUT_SHAPE = (C, H, W)"),
        ("from torch.nn import Identity as model\nINPUT_SHAPE = (1, 0, 3)\n", "INPUT_SHAPE of {path} is (1, 0, 3)"),
        (
            "from torch.nn import Identity as model\nINPUTS = (1, 8, 8)\n",
            "INPUTS of {path} is (1, 8, 8)\n  hint: write",
        ),
        ("from torch.nn import Identity as model\nINPUTS = dict()\n", "INPUTS of {path} is {{}}"),
        ("from torch.nn import Identity as model\nINPUTS = dict(t=0)\n", "INPUTS of {path} has 't': 0"),
        ("from torch.nn import Identity as model\nINPUTS = dict(t=True)\n", "INPUTS of {path} has 't': True"),
        ("from torch.nn import Identity as model\nINPUTS = dict([(3, (1,))])\n", "INPUTS of {path} has 3: (1,)"),
    ],
)
def test_a_factory_that_fails_is_one_message_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "net.py"
    path.write_text(text)
    assert message.format(path=path) in fails(lambda: load_source(str(path)))


# Weights


def wrapped(key: str) -> Callable[[dict[str, torch.Tensor], Path], None]:
    return lambda state, path: torch.save({key: state, "epoch": 3}, path)


@pytest.mark.parametrize(
    ("suffix", "save"),
    [
        ("safetensors", save_file),
        ("pt", torch.save),
        ("pth", wrapped("state_dict")),
        ("ckpt", wrapped("model")),
        ("tar", wrapped("model_state_dict")),
    ],
)
def test_weights_are_read(tmp_path: Path, suffix: str, save: Callable[[dict[str, torch.Tensor], Path], None]) -> None:
    path, state, module = tmp_path / f"weights.{suffix}", small().state_dict(), small()
    save(dict(state), path)
    load_weights(module, path)
    torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0)


def test_counters_of_norms_may_be_missing(tmp_path: Path) -> None:
    state = {name: value for name, value in small().state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "w.pt")
    load_weights(small(), tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.update({"0.weight": torch.zeros(4, 3, 5, 5)}),
            "0.weight is (4, 3, 5, 5) in the file, (4, 3",
        ),
        (lambda state: state.pop("0.bias"), "0.bias is missing"),
        (lambda state: state.update({"2.weight": torch.zeros(1)}), "2.weight is not in the model"),
        (lambda state: state.update({f"{n}": torch.zeros(1) for n in range(5)}), "and 2 more"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    module, state, path = small(), dict(small().state_dict()), tmp_path / "w.pt"
    before = {name: value.clone() for name, value in module.state_dict().items()}
    change(state)
    torch.save(state, path)
    assert message in fails(lambda: load_weights(module, path))
    torch.testing.assert_close(dict(module.state_dict()), before, rtol=0, atol=0)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "there is no weights file" in fails(lambda: load_weights(small(), tmp_path / "w.pt"))
    assert "there is no weights file" in fails(lambda: load_weights(small(), tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(suffix=st.sampled_from(["pt", "safetensors"]), keep=st.floats(0, 1), flips=st.lists(st.integers(0, 10**6)))
def test_damaged_files_are_one_message(tmp_path: Path, suffix: str, keep: float, flips: list[int]) -> None:
    path, state = tmp_path / f"w.{suffix}", {"0.weight": torch.zeros(4, 3, 3, 3)}
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    data = bytearray(path.read_bytes())
    for flip in flips:
        data[flip % len(data)] ^= 1 << flip % 8
    path.write_bytes(data[: int(keep * (len(data) - 1))])
    assert str(path) in fails(lambda: load_weights(small(), path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_is_no_state_is_one_message(tmp_path: Path, value: object) -> None:
    path = tmp_path / "w.pt"
    torch.save(value, path)
    assert str(path) in fails(lambda: load_weights(small(), path))
    path.write_bytes(pickle.dumps(value))
    assert str(path) in fails(lambda: load_weights(small(), path))


class Trap:
    sprung = False

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _spring, ()


def _spring() -> None:
    Trap.sprung = True


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(small(), path)
    assert "a state dict saved with torch.save" in fails(lambda: load_weights(small(), path))
    torch.save({"0.weight": Trap()}, path)
    assert str(path) in fails(lambda: load_weights(small(), path))
    path.write_bytes(pickle.dumps(Trap()))
    assert str(path) in fails(lambda: load_weights(small(), path))
    assert not Trap.sprung


def test_a_module_in_the_current_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "nets_beside_me.py").write_text("from torch import nn\n\ndef net():\n    return nn.Conv2d(1, 2, 3)\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert isinstance(load_source("nets_beside_me:net").module, nn.Conv2d)
    assert sys.path == before


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.zeros(4, 3, 3, 3, dtype=torch.int64), "0.weight is of torch.int64 in the file, of torch.float32 in"),
        (torch.zeros(4, 3, 3, 3, dtype=torch.complex64), "0.weight is of torch.complex64 in the file"),
        (torch.zeros(4, 3, 3, 3, dtype=torch.bool), "0.weight is of torch.bool in the file"),
        (torch.zeros(4, 3, 3, 3, device="meta"), "0.weight is a meta tensor, which has no values"),
        (torch.zeros(4, 3, 3, 3).to_sparse(), "0.weight is sparse"),
    ],
)
def test_tensors_that_are_no_weights_change_nothing(tmp_path: Path, weight: torch.Tensor, message: str) -> None:
    module, path = small(), tmp_path / "w.pt"
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.save({**small().state_dict(), "0.weight": weight}, path)
    assert message in fails(lambda: load_weights(module, path))
    torch.testing.assert_close(dict(module.state_dict()), before, rtol=0, atol=0)


def test_weights_of_another_width_are_weights(tmp_path: Path) -> None:
    state = {name: value.half() if value.is_floating_point() else value for name, value in small().state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    module = small()
    load_weights(module, tmp_path / "w.pt")
    assert {value.dtype for value in module.parameters()} == {torch.float32}
