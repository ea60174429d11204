"""Whether a limit on memory can be held at all: known from shapes, and said before anything long begins."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.errors import UsageError
from trt_layermerge.importance.estimators.base import EstimationRequest
from trt_layermerge.importance.oneshot import NORM_IMAGES
from trt_layermerge.network.inputs import samples_in
from trt_layermerge.network.network import Network
from trt_layermerge.pipeline.job import Job
from trt_layermerge.resources.memory import least_limit
from trt_layermerge.training.task import Task
from trt_layermerge.training.task_check import first_batch


def require_memory(job: Job, network: Network, choices: Sequence[Choice], task: Task) -> None:
    """See that the limit of a job can be held, if it has one.

    Raises:
        UsageError: It cannot; the message says what could.
    """
    if job.memory_limit is None:
        return
    request = EstimationRequest(network, choices, task, job.samples, job.limits.max_kernel, job.importance_file)
    images = samples_in(first_batch(task, "calibration_batches")[0])
    kept = job.samples.calibration + job.samples.held_out + NORM_IMAGES
    least = least_limit(job.estimator.needs(request, images), 4 * kept * sum(prod(one.shape) for one in network.inputs))
    if job.memory_limit.bytes < least.bytes:
        raise UsageError(
            f"--memory-limit {job.memory_limit} cannot be held: {network.name} takes at least {least}, "
            f"in batches of {images}",
            hint=f"pass --memory-limit {-(-least.bytes >> 20)}MiB; or less --calibration and --held-out, smaller "
            "batches of the task, a smaller --max-kernel",
        )
