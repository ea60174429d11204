from __future__ import annotations

import getpass
import platform
from pathlib import Path

import pytest

from trt_layermerge import anonymous as module
from trt_layermerge.anonymous import anonymous, anonymous_value


@pytest.fixture(autouse=True)
def _someone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "marie")
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: Path("/home/marie")))
    monkeypatch.setattr(platform, "node", lambda: "radium.lab.example.org")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot read /home/marie/nets/model.onnx: no such file", "cannot read .../model.onnx: no such file"),
        ('File "/opt/x/trt_layermerge/runtimes/base.py", line 3', 'File ".../trt_layermerge/runtimes/base.py", line 3'),
        ("/usr/lib/python3/site-packages/torch/nn/conv.py:10", ".../torch/nn/conv.py:10"),
        ("~/nets/a.onnx", ".../a.onnx"),
        (r"C:\Users\marie\net.onnx is no file", ".../net.onnx is no file"),
        ("marie on radium", "USER on HOST"),
        ("radium.lab.example.org refuses", "HOST refuses"),
        ("/conv/Conv of 3/4 at 10 GB/s, 8x3x224x224", ".../Conv of 3/4 at 10 GB/s, 8x3x224x224"),
        ("summarieses, radiumite", "summarieses, radiumite"),
        ("CUDA out of memory (cudaErrorMemoryAllocation)", "CUDA out of memory (cudaErrorMemoryAllocation)"),
    ],
)
def test_nothing_tells_of_the_owner(text: str, shown: str) -> None:
    assert anonymous(text) == shown
    assert anonymous(shown) == shown


def test_every_text_of_a_value_is_looked_at() -> None:
    value = {"a": ["/home/marie/x.onnx", 1, None, {"b": "marie"}], "c": 1.5, "d": True}
    assert anonymous_value(value) == {"a": [".../x.onnx", 1, None, {"b": "USER"}], "c": 1.5, "d": True}


def test_a_user_without_a_name_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert anonymous("/a/b/c.onnx") == ".../c.onnx" and module._users() == []
