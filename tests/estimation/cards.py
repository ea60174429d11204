"""Workloads and cards for tests of estimates."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from trt_layermerge.estimation.workload import Workload


def square(
    channels: int, more: int, kernel: int, size: int, stride: int = 1, batch: int = 128, **about: Any
) -> Workload:
    """A convolution with the padding that keeps its size."""
    pad = kernel // 2
    return Workload(
        batch,
        channels,
        more,
        size,
        size,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(pad, pad, pad, pad),
        **about,
    )


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Any convolution there may be."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 8]))
    kernel = draw(st.tuples(*[st.integers(1, 15)] * 2))
    return Workload(
        draw(st.integers(1, 256)),
        groups * draw(st.integers(1, 200)),
        groups * draw(st.integers(1, 200)),
        draw(st.integers(15, 120)),
        draw(st.integers(15, 120)),
        kernel=kernel,
        stride=draw(st.tuples(*[st.integers(1, 3)] * 2)),
        padding=draw(st.tuples(*[st.integers(0, 7)] * 4)),
        groups=groups,
        precision=draw(st.sampled_from(["fp32", "fp16", "int8"])),
        residual=draw(st.booleans()),
    )


def variety() -> list[Workload]:
    """Convolutions of every algorithm, each once."""
    found = []
    for channels, size in ((16, 112), (32, 56), (64, 28), (128, 14), (384, 14), (960, 7)):
        found += [square(channels, more, 1, size) for more in (24, 96, channels)]
        found += [square(channels, more, 3, size) for more in (32, 160)]
        found += [square(channels, more, 3, size, 2) for more in (32, 160)]
        found += [square(channels, 64, 5, size, 2), square(channels, 96, 5, size)]
        found += [square(channels, channels, 3, size, stride, groups=channels) for stride in (1, 2)]
        if size <= 28:
            found += [square(channels, channels, kernel, size) for kernel in (7, 9, 11)]
    return list(dict.fromkeys(found))
