"""Kinds of deployment by name."""

from __future__ import annotations

from pathlib import Path

from trt_layermerge.deployment.base import Delivered, DeploymentKind, require_name
from trt_layermerge.deployment.deepstream import DeepStream
from trt_layermerge.deployment.mlflow_run import MlflowRun
from trt_layermerge.deployment.python_snippet import PythonSnippet
from trt_layermerge.deployment.triton import Triton

_KINDS: tuple[DeploymentKind, ...] = (Triton(), DeepStream(), PythonSnippet(), MlflowRun())

DEPLOYMENTS = {kind.name: kind for kind in _KINDS}
"""A line a kind."""


def deploy(delivered: Delivered, to: str, name: str, folder: Path) -> tuple[Path, ...]:
    """Write a delivery as what one of the kinds loads.

    Args:
        delivered: As ``read_delivered`` read it.
        to: Name of the kind, one of ``DEPLOYMENTS``.
        name: Of the model.
        folder: Where to.

    Returns:
        The files that were written.

    Raises:
        UsageError: The name cannot be a folder's, or the delivery cannot be expressed there.
        RuntimeNotAvailableError: Its runtime has no place there, or a package is missing.
    """
    return tuple(DEPLOYMENTS[to].write(delivered, require_name(name), folder))
