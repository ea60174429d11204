"""What a refusal looks like: one message, the right exit code, nothing on standard output."""

from __future__ import annotations

import re
from typing import Any


def refused(ran: Any, code: int, *words: str) -> None:
    assert ran.code == code, f"{ran.code}: {ran.err}"
    assert "Traceback" not in ran.err and len(re.findall("(?i)^error: ", ran.err, re.M)) == 1, ran.err
    assert ran.out == ""
    for word in words:
        assert re.search(word, ran.err), ran.err
