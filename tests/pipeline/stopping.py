"""A reporter that stops a job in the middle of a stage, as a user would."""

from __future__ import annotations


class StoppedError(Exception):
    pass


class StoppingIn:
    """Stops once so much of a stage is done."""

    def __init__(self, stage: str, after: int) -> None:
        self.at, self.current = (stage, after), ""

    def stage(self, name: str) -> None:
        self.current = name

    def progress(self, done: int, total: int, label: str, *, share: float | None = None) -> None:
        if (self.current, done) == self.at:
            raise StoppedError
