"""What the job says of a task without labels. Frozen, so that it can be part of a job's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trt_layermerge.training.unlabelled.preprocessing import Preprocessing


@dataclass(frozen=True)
class Comparing:
    """How samples are prepared, and outputs compared.

    Attributes:
        preprocessing: Of images of bytes.
        distances: Names of outputs and of their distances, where the user says so.
        metric: ``FILE.py`` or ``FILE.py:function`` of the user's own agreement.
    """

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    distances: tuple[tuple[str, str], ...] = ()
    metric: Path | None = None
