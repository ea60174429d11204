"""SIGTERM, and a terminal that closes, do what Ctrl-C does: temporary files go, and the processes that were started."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from trt_layermerge.errors import Terminated


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Inside, these signals interrupt; one that is ignored, as under ``nohup``, stays so."""
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        interrupt = signal.getsignal(signal.SIGINT)  # which may wait until nothing is half done
        if os.getpid() != process:  # a fork, of the user's code
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif callable(interrupt):
            interrupt(number, frame)
        else:  # Ctrl-C is ignored: a shell's script has put us in the background
            raise Terminated

    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    here = threading.current_thread() is threading.main_thread()  # the only one that Python tells of signals
    signals = [number for number in known if here and signal.getsignal(number) is signal.SIG_DFL]
    for number in signals:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
