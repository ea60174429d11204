"""Loggers, shapes and host memory of the double."""

from __future__ import annotations

from collections.abc import Sequence

from tensorrt._enums import DataType, Severity


class ILogger:
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self) -> None:
        self._ready = True  # pybind11 refuses a subclass that forgot to call this

    def log(self, severity: Severity, msg: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "ILogger::log"')


class Logger(ILogger):
    def __init__(self, min_severity: Severity = Severity.WARNING) -> None:
        super().__init__()
        self.min_severity = min_severity

    def log(self, severity: Severity, msg: str) -> None:
        if severity.value <= self.min_severity.value:
            print(f"[TRT] [{severity.name[0]}] {msg}")


def require_logger(logger: ILogger) -> ILogger:
    """A logger that can be called; what pybind11 says of others is a ``TypeError``."""
    if not getattr(logger, "_ready", False):
        raise TypeError("ILogger.__init__() must be called when overriding __init__")
    return logger


class Dims:
    """Indexed and of a length, without iterator, as the genuine one; ``tuple(dims)`` works by that."""

    MAX_DIMS = 8

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self._sizes = [int(size) for size in shape]

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int) -> int:
        return self._sizes[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dims | tuple | list) and list(other) == self._sizes

    def __repr__(self) -> str:
        return str(tuple(self._sizes))


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)

    @property
    def dtype(self) -> DataType:
        return DataType.INT8
