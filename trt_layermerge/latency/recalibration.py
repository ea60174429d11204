"""Measured rows of the user's own card, from its profile or a CSV table, as recalibration takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trt_layermerge.blocks.gap_signature import AnySignature
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import InputError, TableError
from trt_layermerge.estimation.constants_fit import Measured
from trt_layermerge.estimation.tactic_sources import DEFAULT_LIBRARY
from trt_layermerge.estimation.workload import Workload
from trt_layermerge.latency.convolution_rows import read_convolutions
from trt_layermerge.latency.profile import Profile


def read_measured(path: Path) -> Measured:
    """What was measured on a card: convolutions in FP32.

    Args:
        path: A profile; or a table whose name ends in ``.csv``, with the column ``latency_ms``.

    Raises:
        InputError: The file is neither, or its latencies are simulated, or of no TensorRT.
    """
    if path.suffix == ".csv":
        return read_convolutions(path).measurements()
    profile = Profile.read(path)
    if profile.key.device.simulated:
        raise InputError(f"{path} holds no measurements: they are simulated", hint="profile on the card itself")
    library = {"tensorrt": f"tensorrt-{profile.key.device.runtime_version}", "tensorrt-rtx": DEFAULT_LIBRARY}.get(
        profile.key.device.runtime.partition(":")[0]
    )
    if library is None:
        raise InputError(
            f"{path} is of {profile.key.device.runtime}", hint="estimates are of TensorRT, and so must its rows be"
        )
    try:
        rows = [
            (workload, 1e-6 * row.timing.median_ns)
            for row in profile
            if row.timing is not None and row.timing.median_ns > 0 and (workload := plain_convolution(row.signature))
        ]
    except ValueError as error:
        raise TableError(f"{path} has a row of what is no convolution: {error}", hint="remove that row") from error
    return Measured(
        tuple(workload for workload, _ in rows),
        np.array([latency for _, latency in rows]),
        library,
        "engine",
    )


def plain_convolution(signature: AnySignature) -> Workload | None:
    """The workload of a signature in FP32 that is a convolution, perhaps with an activation, and nothing else.

    Raises:
        ValueError: There can be no such convolution.
    """
    if not isinstance(signature, Signature):
        return None
    c = signature.convolution
    more = signature.pooling or signature.shift or signature.residual or signature.group_norm is not None
    if c is None or more or signature.precision != "fp32":
        return None
    return Workload(
        signature.batch,
        c.in_channels,
        c.out_channels,
        *signature.input_shape[1:],
        kernel=c.kernel,
        stride=c.stride,
        padding=c.padding,
        dilation=c.dilation,
        groups=c.groups,
    )
