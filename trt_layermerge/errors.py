"""Every error a user can meet: what went wrong, what to do about it, and the exit code of the command that met it.

A package raises the class that says most; the command line prints ``str(error)`` and exits with ``error.exit_code``.
What the operating system refuses, such as a full disk, counts as bad input. Any other exception is a bug of ours and
keeps its traceback.
"""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Iterable
from enum import IntEnum

from trt_layermerge.log import record

_LOG = logging.getLogger(__name__)

LONGEST = 2000
"""Characters of a message; a file may hold a name of megabytes."""


class ExitCode(IntEnum):
    """What a process tells the shell, a Makefile or a CI job."""

    DONE = 0
    USAGE = 2
    BAD_INPUT = 3
    INFEASIBLE = 4
    PROOF_FAILED = 5
    NOT_AVAILABLE = 6
    REGRESSION = 7
    INCONCLUSIVE = 8
    INCOMPATIBLE = 9


class LayerMergeError(Exception):
    """Base of all errors: a message, and a hint that says how to mend it.

    Args:
        message: What went wrong and where: the file, the row, the block.
        hint: What the user can do about it; printed on a line of its own.
    """

    exit_code: ExitCode

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = legible(message)
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


def said(error: Exception, longest: int = 400) -> str:
    """What an error of a library says, on one line."""
    return " ".join(str(error).split())[:longest]


def legible(text: str) -> str:
    """One line without what a terminal would obey, cut where it is long: what is in it comes from files of others."""
    shown = text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 4 :]}"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in shown)


def did_you_mean(word: str, known: Iterable[str], otherwise: str | None = None) -> str | None:
    """A hint that names what is nearest to a word among what there is; ``otherwise`` where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


class Caution(UserWarning):
    """What a user must know to trust a result, and what stops nothing; the command line prints it."""


def say(message: str) -> None:
    """Tell the user of something that stops nothing: as a warning, and in the log."""
    record(_LOG.warning, "caution", "%s", message)
    warnings.warn(Caution(message), stacklevel=2)


class Terminated(KeyboardInterrupt):
    """The process is to end, and Ctrl-C is ignored: it is none of the user's code's own interrupts."""


class UsageError(LayerMergeError):
    """The command was called in a way it cannot serve."""

    exit_code = ExitCode.USAGE


class InputError(LayerMergeError):
    """Base of what is wrong with something the user handed in."""

    exit_code = ExitCode.BAD_INPUT


class ModelError(InputError):
    """A model spec, its factory, its weights or its graph cannot be used."""


class DivergedError(InputError):
    """Training led to a loss that is no finite number."""


class TaskError(InputError):
    """A task file cannot be loaded, or what it returns is not a task."""


class TableError(InputError):
    """A profile, an importance table or a plan on disk is not what it should be; the message names the line."""


class InfeasibleBudgetError(LayerMergeError):
    """No plan is fast enough.

    Args:
        message: What was asked for.
        fastest_ms: Latency of the fastest plan there is, in ms.
        hint: What the user can do about it.
    """

    exit_code = ExitCode.INFEASIBLE

    def __init__(self, message: str, *, fastest_ms: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.fastest_ms = fastest_ms


class ProofError(LayerMergeError):
    """A merged network does not compute what its unmerged form does; the message names the block."""

    exit_code = ExitCode.PROOF_FAILED


class VerificationError(LayerMergeError):
    """An engine on disk does not do what its manifest says."""

    exit_code = ExitCode.PROOF_FAILED


class RuntimeNotAvailableError(LayerMergeError):
    """A runtime, a provider or a device is not here."""

    exit_code = ExitCode.NOT_AVAILABLE


class RegressionError(LayerMergeError):
    """The result is slower or worse than was asked for."""

    exit_code = ExitCode.REGRESSION


class InconclusiveError(LayerMergeError):
    """The machine is too noisy for the question, a profile is of another speed, or an engine slower than planned."""

    exit_code = ExitCode.INCONCLUSIVE


class IncompatibleError(LayerMergeError):
    """A profile, a table, a checkpoint or an engine belongs to something else; the message says what differs."""

    exit_code = ExitCode.INCOMPATIBLE
