"""Checkpoints as training scripts save them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from trt_layermerge.errors import ExitCode, ModelError
from trt_layermerge.network.weights_file import load_weights

State = Mapping[str, Tensor]


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1)))


def loaded(tmp_path: Path, saved: Any, key: str = "") -> tuple[nn.Module, str]:
    """A network with the weights of a file, and what was said of them."""
    path = tmp_path / "weights.pth"
    torch.save(saved, path)
    module = small()
    notes = load_weights(module, Path(f"{path}{key}"))
    return module, "\n".join(notes).replace(f"{path}", "FILE")


def assert_is(module: nn.Module, state: State) -> None:
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["module.", "model.", "net.", "backbone.encoder.", "student.0.1."])
def test_one_prefix_of_all_names_is_taken_off(tmp_path: Path, prefix: str) -> None:
    state = small().state_dict()
    module, notes = loaded(tmp_path, {f"{prefix}{name}": value for name, value in state.items()})
    assert_is(module, state)
    assert notes == f"FILE: prefix {prefix!r} taken off all names"


def test_names_of_compiled_networks(tmp_path: Path) -> None:
    state = small().state_dict()
    for rename in ("_orig_mod.{}", "module._orig_mod.{}", "_orig_mod.module.{}"):
        module, notes = loaded(tmp_path, {"state_dict": {rename.format(name): v for name, v in state.items()}})
        assert_is(module, state)
        assert "torch.compile" in notes and ("module." in notes) == ("module." in rename)
    inside = {name.replace("2.0.", "2._orig_mod.0."): value for name, value in state.items()}
    assert_is(loaded(tmp_path, inside)[0], state)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_counters_are_no_weights(tmp_path: Path, prefix: str) -> None:
    state = small().state_dict()
    counters = {"total_ops": torch.zeros(1), "total_params": torch.zeros(1), "0.total_ops": torch.ones(1)}
    module, notes = loaded(tmp_path, {f"{prefix}{name}": value for name, value in {**state, **counters}.items()})
    assert_is(module, state)
    assert "FILE: left out what is no weight: total_ops, total_params" in notes
    without = {name: value for name, value in state.items() if "num_batches" not in name}
    assert loaded(tmp_path, without)[1] == ""


def test_averages_of_torchs_own(tmp_path: Path) -> None:
    average = AveragedModel(small())
    module, notes = loaded(tmp_path, average.state_dict())
    assert_is(module, average.module.state_dict())
    assert "module." in notes and "n_averaged" in notes


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ("state_dict", "state_dict_ema"),
        ("model", "ema"),
        ("params", "params_ema"),
        ("model", "model_ema.module"),
        ("model_state_dict", "ema_state"),
    ],
)
def test_averaged_weights_beside_are_said_and_offered(tmp_path: Path, raw: str, key: str) -> None:
    ours, averaged = small().state_dict(), small().state_dict()
    outer, _, inner = key.partition(".")
    saved = {"epoch": 3, outer: {inner: averaged} if inner else averaged, raw: ours, "optimizer": {"state": {0: {}}}}
    module, notes = loaded(tmp_path, saved)
    assert_is(module, ours)
    assert notes == f"FILE: weights taken from {raw!r}; averaged weights lie beside: --weights FILE#{key}"
    module, notes = loaded(tmp_path, saved, f"#{key}")
    assert_is(module, averaged)
    assert notes == ""


def test_averaged_weights_alone_are_taken(tmp_path: Path) -> None:
    state = small().state_dict()
    assert_is(loaded(tmp_path, {"params_ema": state, "iter": 7})[0], state)


def test_a_key_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no state dict 'averaged'") as caught:
        loaded(tmp_path, {"state_dict": small().state_dict()}, "#averaged")
    assert "weights.pth#state_dict" in str(caught.value) and caught.value.exit_code is ExitCode.BAD_INPUT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {("a." if i else "b.") + n: v for i, (n, v) in enumerate(s.items())}, "0.weight is missing"),
        (lambda s: {f"module.{n}": v for n, v in s.items() if n != "0.bias"}, "0.bias is missing"),
        (lambda s: {f"module.{n}": v[..., None] for n, v in s.items()}, "in the file"),
        (lambda s: {**s, "head.weight": torch.zeros(1)}, "head.weight is not in the model"),
        (lambda s: {"epoch": 3}, "does not hold a state dict"),
    ],
)
def test_what_does_not_fit_is_told_by_name(
    tmp_path: Path, change: Callable[[State], Mapping[str, Any]], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        loaded(tmp_path, change(small().state_dict()))


@given(st.lists(st.sampled_from(["module", "model", "net", "0", "2"]), max_size=3))
def test_any_prefix_comes_off_and_nothing_else(prefix: list[str]) -> None:
    state = small().state_dict()
    with tempfile.TemporaryDirectory() as folder:
        saved = {".".join([*prefix, name]): value for name, value in state.items()}
        assert_is(loaded(Path(folder), saved)[0], state)


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"\x80\x02."], ids=["empty", "begun", "of nothing"])
def test_a_damaged_file_is_told_of_in_words(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(data)
    with pytest.raises(ModelError, match=r"cannot read the weights file .*w\.pth: \w+") as caught:
        load_weights(small(), tmp_path / "w.pth")
    assert "Error" not in caught.value.message.rpartition(": ")[2]
