from __future__ import annotations

import contextlib
import gc
import io
import logging
import logging.config
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data._utils import signal_handling

from trt_layermerge import usercode
from trt_layermerge.errors import Caution, TaskError
from trt_layermerge.modes import left_on, modes_now
from trt_layermerge.usercode import user_code

OURS = logging.getLogger("trt_layermerge.training.task_check")

TOLD: dict[str, Callable[[], object]] = {
    "torch's default dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch's default device": lambda: torch.set_default_device("meta"),
    "torch's grad mode": lambda: torch.set_grad_enabled(False),
    "torch's autocast": lambda: torch.autocast("cpu", torch.bfloat16).__enter__(),
    "torch's number of threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch's matmul precision": lambda: torch.set_float32_matmul_precision("medium"),
    "torch's anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "torch's deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "torch's cudnn.benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "torch's cudnn.deterministic": lambda: setattr(torch.backends.cudnn, "deterministic", True),
    "numpy's error handling": lambda: np.seterr(all="raise"),
    "the working directory": lambda: os.chdir("/"),
    "environment variables": os.environ.clear,
    "handlers of signals": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "the alarm clock": lambda: signal.alarm(60),
    "standard streams": lambda: setattr(sys, "stdout", io.StringIO()),
    "the file mode mask": lambda: os.umask(0o777),
}
NOT_TOLD: dict[str, Callable[[], object]] = {
    "filters": lambda: warnings.simplefilter("error"),
    "logging is off": lambda: logging.disable(logging.CRITICAL),
    "logging is configured": lambda: logging.config.dictConfig({"version": 1}),
    "recursion": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 7),
    "garbage": gc.disable,
    "interrupts": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
}


@pytest.fixture(autouse=True)
def nothing_was_said() -> Iterator[None]:
    usercode._say_once.cache_clear()
    yield
    usercode._say_once.cache_clear()


def _values() -> list[object]:
    return [signal.getsignal(signal.SIGINT), OURS.disabled, *(value for _, value in modes_now())]


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="there are no such signals")
def test_the_handler_that_a_loader_with_workers_sets_raises_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD)
    with user_code("it", TaskError):  # a warning would be an error
        signal_handling._set_SIGCHLD_handler()
        assert signal.getsignal(signal.SIGCHLD) != before
    assert signal.getsignal(signal.SIGCHLD) == before


@pytest.mark.parametrize("timer", [signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF])
def test_no_timer_runs_on(timer: signal.Signals) -> None:
    with pytest.warns(Caution, match="the alarm clock"), user_code("it", TaskError):
        signal.setitimer(timer, 60)
    assert signal.getitimer(timer) == (0, 0)


@pytest.mark.parametrize("name", TOLD)
def test_what_user_code_sets_for_the_process_is_put_back_and_said_once(name: str) -> None:
    before = _values()
    said = f"has changed {name} for the whole process; that was put back$"
    with pytest.warns(Caution, match=said), user_code("it", TaskError):
        TOLD[name]()
    assert _values() == before
    with user_code("it", TaskError):
        TOLD[name]()
    assert _values() == before


@pytest.mark.parametrize("name", [*TOLD, *NOT_TOLD])
@pytest.mark.filterwarnings("ignore::trt_layermerge.errors.Caution")
def test_it_is_put_back_where_user_code_fails_too(name: str) -> None:
    before = _values()
    with pytest.raises(TaskError, match="ValueError: late"), user_code("it", TaskError):
        (TOLD | NOT_TOLD)[name]()
        raise ValueError("late")
    assert _values() == before


def test_what_is_as_it_was_and_new_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERMERGE_NEW", "removed behind this test")
    monkeypatch.delenv("LAYERMERGE_NEW")
    with user_code("it", TaskError), torch.no_grad(), torch.inference_mode():
        torch.manual_seed(5)
        os.environ["LAYERMERGE_NEW"] = "stays"
    assert os.environ["LAYERMERGE_NEW"] == "stays" and torch.initial_seed() == 5


def test_a_generator_that_turns_gradients_off_does_so_for_itself_alone() -> None:
    def batches() -> Iterator[bool]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for _ in range(2):
                yield torch.is_grad_enabled()

    given = batches()
    with pytest.warns(Caution, match="torch's (grad mode|autocast)"):
        before = _values()  # with the filters that pytest has set
        for _ in range(3):
            with user_code("it", TaskError):
                next(given, None)
            assert _values() == before


def test_a_mode_that_ends_only_where_it_began_is_refused() -> None:
    on, mode = left_on(), torch.inference_mode()
    said = r"^it: it leaves a mode of torch on\n  hint: .* with statement"
    with pytest.raises(TaskError, match=said), user_code("it", TaskError):
        mode.__enter__()
    mode.__exit__(None, None, None)
    assert left_on() == on


def test_other_threads_have_modes_of_their_own(tmp_path: Path) -> None:
    found: list[object] = []

    def work() -> None:
        with contextlib.suppress(Caution), user_code("it", TaskError):
            torch.set_grad_enabled(False)
            np.seterr(all="raise")
        found.extend([torch.is_grad_enabled(), np.geterr()["over"]])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True, np.geterr()["over"]]
