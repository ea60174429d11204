"""Records of what happens, below the logger ``trt_layermerge``, with fields that programs read.

Nothing is configured here: who wants to see records adds a handler, as the command line does. A record has ``event``, a
word for its kind, and ``fields``, a mapping; ``JsonLines`` writes both.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime


def record(write: Callable[..., None], event: str, message: str, *values: object, **fields: object) -> None:
    """Log a message with the fields it is made of.

    Args:
        write: A logger's method, such as ``info``.
        event: What kind of record it is, in a word.
        message: For people, with the places of ``values``.
        values: What goes there.
        fields: For programs.
    """
    write(message, *values, extra={"event": event, "fields": fields}, stacklevel=2)


class JsonLines(logging.Formatter):
    """A record as a JSON object on one line: time, level, logger, event, message, fields, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", None) or "message",
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
