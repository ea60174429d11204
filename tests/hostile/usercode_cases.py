"""Tasks that end the process, yield what they should not, or change settings of the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

from tests.hostile.case import ASSETS, Hostile, Right, job

_BATCHES = ("calibration_batches", "held_out_batches", "test_batches", "training_batches")
_VALUES = ("loss", "metric")
_BEGIN = (ASSETS / "task.py").read_text().partition("def task()")[0]
_TASK = """
import os, signal, sys, gc, io, itertools, logging, logging.config, warnings
import click, numpy

{top}

class Odd(Exception):
    def __str__(self):
        raise SystemExit(0)

class Exiting(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        raise SystemExit(0)

class Hostile(Classification):
    calls = 0
{members}
def task():
    {inside}
    return Hostile("hostile", images(320, 0), images(64, 1), batch_size=16, held_out=64, calibration=64)
"""
_LATER_BATCH = """
    def {name}(self, *given, **named):
        for number, (x, y) in enumerate(super().{name}(*given, **named)):
            if number == 1:
                {does}
            yield x, y
"""
_LATER_CALL = """
    def {name}(self, *given, **named):
        Hostile.calls += 1
        if Hostile.calls {when}:
            {does}
        return super().{name}(*given, **named)
"""

ENDINGS = (
    "raise SystemExit(0)",
    "sys.exit()",
    "raise KeyboardInterrupt",
    "raise GeneratorExit",
    "raise BaseException('odd')",
    "raise BaseExceptionGroup('g', [SystemExit(0)])",
    "raise click.exceptions.Exit(0)",
    "raise Odd",
    "raise MemoryError",
    "os._exit(0)",
    "os.execv('/bin/true', ['true'])",
)
MODES = (
    "torch.set_default_dtype(torch.float64)",
    "torch.set_default_device('meta')",
    "torch.set_grad_enabled(False)",
    "torch.autocast('cpu', torch.bfloat16).__enter__()",
    "torch.set_num_threads(2)",
    "torch.use_deterministic_algorithms(True)",
    "torch.autograd.set_detect_anomaly(True)",
    "torch.backends.cudnn.deterministic = True",
    "torch.manual_seed(7); numpy.random.seed(7)",
    "numpy.seterr(all='raise')",
    "os.chdir('/')",
    "os.environ.clear()",
    "os.umask(0o777)",
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)",
    "signal.alarm(600)",
    "sys.stdout = io.StringIO(); sys.stderr = None",
    "sys.setrecursionlimit(220)",
    "logging.disable(logging.CRITICAL)",
    "logging.config.dictConfig({'version': 1})",
    "warnings.simplefilter('error')",
    "gc.disable()",
)
WRONG_BATCHES = (
    *("x = x.to(torch.uint8)", "x = x.double()", "x = x.half()", "x = x.to(torch.complex64)", "x = x > 0"),
    *("x = x.expand(-1, 3, -1, -1)", "x = x[..., :7]", "x = x[0]", "x = x[..., None]", "x = x[:0]; y = y[:0]"),
    *("x = x.to('meta')", "x = x.to_sparse()", "x = x.to_mkldnn()", "x = x.as_subclass(Exiting)"),
    *("x = torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)", "x = x * float('nan')", "x = x + float('inf')"),
    *("x = x.numpy()", "x = {'x': x}", "x = 'ab'", "y = None", "y = y[:1]", "y = y - 100", "y = y + 10**12"),
)
VALUES = (
    *("return torch.tensor(float('nan'))", "return torch.tensor(float('inf'))", "return torch.tensor(-1e300)"),
    *("return None", "return 'ab'", "return torch.zeros(0)", "return torch.zeros(3)", "return 0.5", "return given"),
    *(
        "return torch.full((len(given[1]),), float('nan'))",
        "return torch.tensor(1j)",
        "return torch.zeros((), device='meta')",
    ),
)
"""What a loss or a metric gives once, or from then on."""


def _task(
    folder: Path, *, top: str = "", inside: str = "pass", members: str = "    pass\n", more: str = ""
) -> list[object]:
    (folder / "task.py").write_text(_BEGIN + _TASK.format(top=top, inside=inside, members=members))
    return job(folder, *more.split())


def _placed(place: str, does: str, folder: Path, when: str = "== 3") -> list[object]:
    if place == "import":
        return _task(folder, top=does)
    if place == "task":
        return _task(folder, inside=does)
    later = _LATER_CALL if place in _VALUES else _LATER_BATCH
    return _task(folder, members=later.format(name=place, does=does, when=when))


def usercode_cases() -> Iterator[Hostile]:
    """All of them."""
    for place, does in product(("import", "task", *_BATCHES, *_VALUES), ENDINGS):
        yield Hostile(f"ends in {place}: {does}", partial(_placed, place, does))
    for place in ("import", "held_out_batches", "training_batches", "loss"):
        right = Right.EITHER if place == "import" else Right.SAME
        without = partial(_placed, place, "pass")  # not the usual task: with a loss of its own, importance is another
        for does in MODES:
            yield Hostile(f"mode in {place}: {does}", partial(_placed, place, does), right, without)
    for place, does in product(_BATCHES, WRONG_BATCHES):
        unread = place == "calibration_batches" and does in ("y = y - 100", "y = y + 10**12")  # fits need no labels
        right = Right.SAME if unread else Right.REFUSED
        yield Hostile(
            f"batch of {place}: {does}", partial(_placed, place, does), right, partial(_placed, place, "pass")
        )
    for place, does, when in product(_VALUES, VALUES, ("== 3", ">= 3", ">= 25")):
        yield Hostile(f"value of {place} {when}: {does}", partial(_placed, place, does, when=when), Right.EITHER)
