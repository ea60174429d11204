"""What is expected of a device's latencies before it is asked: the estimate of a card that it is, or is like."""

from __future__ import annotations

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import InputError
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.latency.row_bounds import Prior
from trt_layermerge.pipeline.job import Job
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime


def estimated_prior(card: str, job: Job) -> Prior:
    """The estimate of a card for blocks amid a network, in ns; ``None`` of what it has no estimate of.

    Raises:
        UsageError: There is no such card.
    """
    runtime = get_runtime(f"estimate:{card}")
    options = BuildOptions(precision=job.options.precision, isolated=True)
    known: dict[str, float | None] = {}

    def estimate(signature: Signature) -> float | None:
        if signature.key not in known:
            try:
                known[signature.key] = float(runtime.build(candidate_model(signature), options).time(1)[0])
            except InputError:
                known[signature.key] = None
        return known[signature.key]

    return estimate
