from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from tests.estimation.cards import square, workloads
from trt_layermerge.estimation.workload import MemoryOperation, Workload


@settings(max_examples=30)
@given(workloads())
def test_output_sizes_are_torchs(one: Workload) -> None:
    top, left, bottom, right = one.padding
    padded = torch.empty(1, one.groups, one.height + top + bottom, one.width + left + right, device="meta")
    layer = torch.nn.Conv2d(one.groups, 1, one.kernel, one.stride, dilation=one.dilation, device="meta")
    assert one.output_size == tuple(layer(padded).shape[2:])


def test_depthwise_is_a_group_for_each_channel_that_stays_one() -> None:
    assert square(32, 32, 3, 28, groups=32).depthwise
    assert not square(32, 64, 3, 28, groups=32).depthwise
    assert not square(1, 1, 3, 28).depthwise


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"groups": 4}, "groups"),
        ({"dilation": (2, 2)}, "dilation"),
        ({"kernel": (3, 1)}, "kernel"),
        ({"stride": (2, 1)}, "stride"),
        ({"padding": (0, 0, 1, 1)}, "padding"),
        ({"residual": True}, "residual"),
    ],
)
def test_what_no_fit_has_seen_is_named(change: dict[str, Any], word: str) -> None:
    plain = square(32, 32, 3, 28)
    assert plain.oddities == () and any(word in name for name in replace(plain, **change).oddities)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"batch": 0}, "batch"),
        ({"kernel": (0, 3)}, "kernel"),
        ({"padding": (0, -1, 0, 0)}, "padding"),
        ({"groups": 5}, "groups"),
        ({"precision": "bf16"}, "precision"),
        ({"kernel": (31, 31)}, "kernel"),
        ({"height": 2**40}, "height"),
    ],
)
def test_what_is_no_convolution_is_refused_by_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field}"):
        replace(square(32, 32, 3, 28), **change)


@pytest.mark.parametrize("change", [{"read": -1}, {"written": 2**60}, {"precision": "bf16"}])
def test_memory_operations_count_something(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(MemoryOperation(1, 1), **change)
