"""A logger for NVIDIA's libraries that keeps the last error, to be part of ours."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def error_logger(library: ModuleType) -> Any:
    """A logger of a library, whose ``last`` is the last error that it was told."""
    severity = library.ILogger.Severity
    grave, base = (severity.ERROR, severity.INTERNAL_ERROR), library.ILogger

    class Errors(base):  # type: ignore[misc, valid-type, unused-ignore]
        """Called by the library, from any of its threads."""

        def __init__(self) -> None:
            base.__init__(self)
            self.last = "it does not say why"

        def log(self, severity: Any, msg: str) -> None:
            """Keep an error."""
            if severity in grave:
                self.last = msg

    return Errors()
