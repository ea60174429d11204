from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trt_layermerge.training.strides import Unstrided

aten = torch.ops.aten

CONVOLUTIONS = [torch.conv1d, torch.conv2d, aten.conv1d.default, aten.conv2d.default]
TRANSPOSED = [
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
]


@st.composite
def calls(draw: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A convolution that may be strided and 1x1, with a batch, weights, perhaps a bias, and settings."""
    convolve = draw(st.sampled_from(CONVOLUTIONS + TRANSPOSED))
    axes, transposed = (1 if "1d" in convolve.__name__ else 2), convolve in TRANSPOSED
    numbers = lambda low, high: draw(st.lists(st.integers(low, high), min_size=axes, max_size=axes))  # noqa: E731
    torch.manual_seed(draw(st.integers(0, 2**32)))
    groups, inputs, outputs = draw(st.sampled_from([1, 1, 1, 2])), draw(st.integers(1, 3)), draw(st.integers(1, 20))
    channels = (inputs * groups, outputs) if transposed else (outputs * groups, inputs)
    kernel = draw(st.sampled_from([[1] * axes, [1] * axes, numbers(1, 2)]))
    x = torch.randn(2, inputs * groups, *numbers(3, 7), dtype=torch.float64)
    weight = torch.randn(*channels, *kernel, dtype=torch.float64)
    bias = torch.randn(outputs * groups, dtype=torch.float64) if draw(st.booleans()) else None
    settings = {
        "stride": numbers(1, 3),
        "padding": draw(st.sampled_from([[0] * axes, numbers(0, 1)])),
        "groups": groups,
    }
    if transposed:
        settings["output_padding"] = [draw(st.integers(0, step - 1)) for step in settings["stride"]]
    return convolve, (x, weight, bias), settings


def values(call: tuple[Any, tuple[Tensor | None, ...], dict[str, Any]]) -> list[Tensor]:
    """Its result, and gradients."""
    convolve, given_, settings_ = call
    leaves = [None if value is None else value.clone().requires_grad_() for value in given_]
    y = convolve(*leaves, **settings_)
    return [y.detach(), *torch.autograd.grad(y.sin().sum(), [leaf for leaf in leaves if leaf is not None])]


@given(call=calls())
@settings(deadline=None, database=None, max_examples=200)
def test_it_is_the_same_convolution(call: tuple[Any, Any, Any]) -> None:
    expected = values(call)
    with Unstrided():
        found = values(call)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("padding", [0, "valid"])
def test_one_stride_for_all_axes_and_padding_in_words(padding: Any) -> None:
    x, weight = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 1, 1)
    expected = torch.conv2d(x, weight, None, 2, padding)
    with Unstrided():
        torch.testing.assert_close(torch.conv2d(x, weight, None, 2, padding), expected)
        torch.testing.assert_close(torch.conv2d(input=x, weight=weight, stride=2, padding=padding), expected)


@pytest.mark.parametrize("isa", ["AVX2", "DEFAULT"])
def test_training_writes_nothing_but_its_gradients(isa: str, tmp_path: Path) -> None:
    """Kernels are another processor's, where this one has them; the heap is checked where glibc keeps it."""
    checked = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("strided.py")), str(tmp_path)],
        env={**os.environ, **checked, "ONEDNN_MAX_CPU_ISA": isa, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-3
