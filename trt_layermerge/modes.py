"""Settings of a whole process that user code may change and leave changed; they are put back behind it.

A task that sets torch's default dtype, or a library that it imports, would change what is computed and timed from then
on, for which no key knows a word. States of random numbers are no settings: user code draws from them as it likes, and
nothing of ours is drawn from them without a seed of its own. New environment variables stay; who sets them wants them
to be read later.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

Snapshot = list[tuple["_Mode", Any]]


@dataclass(frozen=True)
class _Mode:
    """A setting.

    Attributes:
        name: In words.
        read: What it is now; raises or is ``None`` where there is nothing to put back.
        write: Sets it.
        told: Whether user code that does not get what it has set should be told so.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], object]
    told: bool = True


def modes_now() -> Snapshot:
    """What the settings are now: in a thread beside the main one, those that each thread has for itself."""
    return [(mode, value) for mode in _modes() if (value := _read(mode)) is not None]


def put_back(before: Snapshot) -> list[str]:
    """Put back what differs now; names of what user code is to be told of."""
    changed = [(mode, value) for mode, value in before if _read(mode) != value]
    for mode, value in changed:
        with suppress(OSError, RuntimeError):  # the folder has gone, or the build of torch lacks what it names
            mode.write(value)
    return [mode.name for mode, _ in changed if mode.told]


def left_on() -> int:
    """How many of torch's modes are on that end only where they began: inference mode, fake tensors and the like."""
    if (torch := sys.modules.get("torch")) is None:
        return 0
    stacks = ("_len_torch_dispatch_stack", "_len_torch_function_stack")
    depths = [getattr(torch._C, name, lambda: 0)() for name in stacks]
    return int(torch.is_inference_mode_enabled()) + sum(depths)


def _read(mode: _Mode) -> Any:
    with suppress(OSError, RuntimeError, AttributeError):
        return mode.read()
    return None


def _modes() -> Iterator[_Mode]:
    main = threading.current_thread() is threading.main_thread()
    if main:
        yield from _PROCESS
    if (torch := sys.modules.get("torch")) is not None:
        yield from _of_torch(torch, main)
    if (numpy := sys.modules.get("numpy")) is not None:
        yield _Mode("numpy's error handling", numpy.geterr, lambda before: numpy.seterr(**before))


def _of_torch(torch: Any, main: bool) -> Iterator[_Mode]:
    yield _Mode("torch's grad mode", torch.is_grad_enabled, torch.set_grad_enabled)
    yield _Mode("torch's autocast", lambda: _autocast(torch), lambda before: _set_autocast(torch, before))
    if main:
        yield _Mode("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype)
        yield _Mode("torch's default device", torch.get_default_device, lambda before: _set_device(torch, before))
        yield _Mode("torch's number of threads", torch.get_num_threads, torch.set_num_threads)
        yield _Mode("torch's matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
        yield _Mode("torch's anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly)
        yield _Mode(
            "torch's deterministic algorithms",
            lambda: (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            lambda before: torch.use_deterministic_algorithms(before[0], warn_only=before[1]),
        )
        for name in ("enabled", "benchmark", "deterministic", "allow_tf32"):
            yield _flag(f"torch's cudnn.{name}", torch.backends.cudnn, name)


def _flag(name: str, owner: Any, attribute: str) -> _Mode:
    return _Mode(name, lambda: getattr(owner, attribute), lambda before: setattr(owner, attribute, before))


_DEVICES = ("cpu", "cuda")


def _autocast(torch: Any) -> list[Any]:
    torch.autocast_increment_nesting()  # there is no other way to ask
    depth = torch.autocast_decrement_nesting()
    return [depth, *((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in _DEVICES)]


def _set_autocast(torch: Any, before: list[Any]) -> None:
    depth, *states = before
    for kind, (enabled, dtype) in zip(_DEVICES, states, strict=True):
        torch.set_autocast_enabled(kind, enabled)
        torch.set_autocast_dtype(kind, dtype)
    torch.clear_autocast_cache()
    while torch.autocast_decrement_nesting() > depth:
        pass
    while torch.autocast_increment_nesting() <= depth:  # one more than there were, which is taken back
        pass
    torch.autocast_decrement_nesting()


def _set_device(torch: Any, before: Any) -> None:
    torch.set_default_device(None)
    if torch.get_default_device() != before:
        torch.set_default_device(before)


def _put_environment(before: dict[str, str]) -> None:
    os.environ.update(before)


def _environment() -> _Environment:
    return _Environment(os.environ)


class _Environment(dict[str, str]):
    """Equal to one in which nothing of it has changed, whatever was added there."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and all(self.get(name) == value for name, value in other.items())

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None


def _streams() -> tuple[Any, ...]:
    return sys.stdin, sys.stdout, sys.stderr


def _put_streams(before: tuple[Any, ...]) -> None:
    sys.stdin, sys.stdout, sys.stderr = before


def _umask() -> int:
    mask = os.umask(0o77)
    os.umask(mask)
    return mask


def _put_filters(before: tuple[Any, ...]) -> None:
    warnings.resetwarnings()
    warnings.filters[:] = before  # type: ignore[index]  # a list, whatever typeshed says


def _loggers() -> list[str]:
    """Those of ours that are switched off, as ``logging.config`` does with all that it does not know."""
    known = list(logging.root.manager.loggerDict.items())  # asked for around every call: libraries have hundreds
    ours = [(name, one) for name, one in known if name.startswith(__package__)]
    return [name for name, one in ours if isinstance(one, logging.Logger) and one.disabled]


def _put_loggers(before: list[str]) -> None:
    for name in set(_loggers()) - set(before):
        logging.getLogger(name).disabled = False


_TIMERS = [getattr(signal, name) for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF") if hasattr(signal, name)]


def _timers() -> list[bool]:
    return [signal.getitimer(timer)[0] > 0 for timer in _TIMERS]


def _put_timers(before: list[bool]) -> None:
    for timer, running in zip(_TIMERS, before, strict=True):
        if not running:
            signal.setitimer(timer, 0)


_HANDLED = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGPIPE") if hasattr(signal, name)]


def _handlers() -> list[Any]:
    return [signal.getsignal(number) for number in _HANDLED]


def _of_children() -> Any:
    """A DataLoader's raises wherever it finds us once a worker has died; who waits for that worker is told anyway."""
    return signal.getsignal(signal.SIGCHLD)


def _put_of_children(before: Any) -> None:
    signal.signal(signal.SIGCHLD, before)


def _put_handlers(before: list[Any]) -> None:
    for number, handler, now in zip(_HANDLED, before, _handlers(), strict=True):
        if handler is not None and handler != now:  # None is not Python's
            signal.signal(number, handler)


_PROCESS = (
    _Mode("the working directory", os.getcwd, os.chdir),
    _Mode("environment variables", _environment, _put_environment),
    _Mode("handlers of signals", _handlers, _put_handlers),
    *(
        [_Mode("the handler of ended processes", _of_children, _put_of_children, told=False)]
        * hasattr(signal, "SIGCHLD")
    ),
    *([_Mode("the alarm clock", _timers, _put_timers)] if _TIMERS else []),
    _Mode("standard streams", _streams, _put_streams),
    _Mode("filters of warnings", lambda: tuple(warnings.filters), _put_filters, told=False),
    _Mode("the level of all loggers", lambda: logging.root.manager.disable, logging.disable, told=False),
    _Mode("loggers", _loggers, _put_loggers, told=False),
    _Mode("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, told=False),
    _Mode("the file mode mask", _umask, os.umask),
    _Mode("garbage collection", gc.isenabled, lambda before: gc.enable() if before else gc.disable(), told=False),
)
