"""The original as it will be timed and compared with: ONNX, its norms folded, checked against its own source."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.verification import run_outputs
from trt_layermerge.errors import ModelError, ProofError
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.proof import NETWORK_TOLERANCE, relative_error
from trt_layermerge.network.inputs import Values, as_tuple, batched_shapes
from trt_layermerge.network.network import Network
from trt_layermerge.network.outputs import named_outputs
from trt_layermerge.network.unwrap import in_evaluation
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.usercode import user_code

COMPARED_WITH = "onnxruntime"
"""What runs the file here, whatever it will be timed in."""


def write_original(network: Network, inputs: Values, path: Path) -> None:
    """Write the original, and see that it computes what its source does.

    Args:
        network: The original.
        inputs: Real ones, ``[samples, ...]`` each.
        path: Where to.

    Raises:
        ModelError: The source cannot be run on them.
        ProofError: An output differs by more than 1e-4 of its largest value; nothing is left at ``path``.
    """
    given = as_tuple(inputs)
    expected = None if network.source is None else _expected(network, network.source, given)
    export_onnx(fold_norms(network.module), network.inputs, path)
    if expected is None:
        return
    shapes = batched_shapes(network.inputs, len(given[0]))
    outputs = run_outputs(get_runtime(COMPARED_WITH).build(path, BuildOptions(), shapes), given)
    for (name, actual), one in zip(outputs.items(), expected, strict=True):
        error = relative_error(actual, one) if actual.shape == one.shape else float("inf")
        if error > NETWORK_TOLERANCE:
            path.unlink()
            raise ProofError(
                f"the original as ONNX differs from {network.name} by {error:.1e} of the largest value of {name!r} on "
                f"real inputs (allowed: {NETWORK_TOLERANCE:.0e}); nothing was measured",
                hint="please report this with the network: trt-layermerge inspect shows what was taken for a layer",
            )


def _expected(network: Network, source: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What the source makes of inputs, whose ``forward()`` is the user's code."""
    with user_code(f"cannot run {network.name} on real inputs", ModelError), torch.no_grad():
        copies = (value.clone() for value in given)  # which a source may write into
        found = tuple(named_outputs(in_evaluation(source)(*copies)).values())
    if len(found) != len(network.outputs):
        raise ModelError(
            f"{network.name} returns {len(found)} tensors for real inputs, {len(network.outputs)} when it is traced",
            hint="forward() must return the same tensors each time, whatever it is given",
        )
    return found
