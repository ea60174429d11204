"""What of the package's records people see on standard error, and the file of them that programs read."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from trt_layermerge.errors import InputError
from trt_layermerge.log import JsonLines

LOGGER = logging.getLogger("trt_layermerge")

SHOWN_ALREADY = ("usage", "crash")
"""Kinds of records that click, or Python itself, shows to people."""


class _ForPeople(logging.Handler):
    """Prints messages; warnings once each, for a job of several networks meets some several times."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if getattr(record, "event", "") in SHOWN_ALREADY or message in self._warned:
            return
        if record.levelno == logging.WARNING:
            self._warned.add(message)
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        click.echo(f"{prefix}{message}", err=True)


class _ForPrograms(logging.FileHandler):
    """Appends one JSON object a line; where that fails, once people are told, and nothing else ends with it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(JsonLines())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name in logging
        LOGGER.removeHandler(self)
        LOGGER.warning("the log %s is written no further: %s", self.baseFilename, sys.exc_info()[1])

    def close(self) -> None:
        with suppress(OSError):  # what could not be written is still to be written
            super().close()


class Logs:
    """The handlers of one run of the command line, while it lasts."""

    def __init__(self) -> None:
        self._people = _ForPeople()
        self._file: logging.Handler | None = None
        self._level = LOGGER.level

    def __enter__(self) -> Logs:
        LOGGER.addHandler(self._people)
        self._set_level()
        return self

    def __exit__(self, *_: object) -> None:
        for handler in (self._people, self._file):
            if handler is not None:
                LOGGER.removeHandler(handler)
                handler.close()
        LOGGER.setLevel(self._level)

    @property
    def draws(self) -> bool:
        """Whether progress is drawn: not among messages of one line each, and not for those who want none."""
        return self._people.level == logging.WARNING

    @property
    def quiet(self) -> bool:
        """Whether people want errors alone."""
        return self._people.level > logging.WARNING

    def show(self, level: int) -> None:
        """Show people messages of this level and above."""
        self._people.setLevel(level)
        self._set_level()

    def write_to(self, path: Path) -> None:
        """Append every record to a file, one JSON object a line.

        Raises:
            InputError: The file cannot be written.
        """
        try:
            self._file = _ForPrograms(path)
        except OSError as error:
            raise InputError(f"cannot write the log {path}: {error.strerror}") from error
        LOGGER.addHandler(self._file)
        self._set_level()

    def _set_level(self) -> None:
        LOGGER.setLevel(self._people.level if self._file is None else logging.DEBUG)


def logs_of(ctx: click.Context) -> Logs | None:
    """The logs of a run; ``None`` where a command was called by itself, as tests do."""
    return ctx.find_object(Logs)


def _verbose(ctx: click.Context, _param: click.Parameter, count: int) -> None:
    if count and (logs := logs_of(ctx)) is not None:
        logs.show(logging.INFO if count == 1 else logging.DEBUG)


def _quiet(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and (logs := logs_of(ctx)) is not None:
        logs.show(logging.ERROR)


def _log_json(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    if path is not None and (logs := logs_of(ctx)) is not None:
        logs.write_to(path)


_ABOUT: dict[str, Any] = {"is_eager": True, "expose_value": False}

log_options = (
    click.option(
        "-v",
        "--verbose",
        count=True,
        callback=_verbose,
        help="Say what begins, ends and is decided, a line each; twice, every row.",
        **_ABOUT,
    ),
    click.option(
        "-q", "--quiet", is_flag=True, callback=_quiet, help="Say nothing but the result and errors.", **_ABOUT
    ),
    click.option(
        "--log-json",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        callback=_log_json,
        help="Append all that happens to FILE, one JSON object a line; for jobs that nobody watches.",
        **_ABOUT,
    ),
)
