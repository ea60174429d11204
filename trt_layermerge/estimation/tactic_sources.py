"""Which algorithms a version of TensorRT chooses among."""

from __future__ import annotations

import re

from trt_layermerge.estimation.card import ALGORITHMS, Algorithm

DEFAULT_LIBRARY = "tensorrt-10"

CUDNN_OFF = (8, 6)
"""cuDNN, which brings FFT, is a tactic source by default up to TensorRT 8.5; 10 and 11 have none."""


def algorithms_of(library: str) -> tuple[Algorithm, ...]:
    """What a library has by default.

    Args:
        library: Such as ``tensorrt-8.4`` or ``tensorrt-10``.

    Raises:
        ValueError: It is no TensorRT, or has no version.
    """
    found = re.fullmatch(r"tensorrt-(\d{1,3})(?:\.(\d{1,3}))?(?:\.\d+)*", library)
    if found is None:
        raise ValueError(f"runtime is {library!r}, not TensorRT with a version, such as {DEFAULT_LIBRARY}")
    if (int(found[1]), int(found[2] or 0)) < CUDNN_OFF:
        return ALGORITHMS
    return tuple(one for one in ALGORITHMS if one != "fft")
