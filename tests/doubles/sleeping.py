"""A runtime without a device, whose engines sleep: rows take a known time, and all have the same latency."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from trt_layermerge.runtimes.base import Device, Runtime, RuntimeKind

SECONDS = "SLEEPING_SECONDS"
"""Environment variable: how long a burst takes."""


class SleepingEngine:
    inputs: ClassVar = {}
    outputs: ClassVar = {}

    def time(self, repeats):
        time.sleep(float(os.environ.get(SECONDS, "0")))
        return np.full(repeats, 1_000_000, np.int64)


class SleepingRuntime(Runtime):
    def __init__(self, kind):
        self.kind = kind

    def describe(self, options):
        timing = ("slept", "none")
        return Device("nothing", "sleeping", "1", None, options.precision, options.threads, *timing, simulated=True)

    def build(self, model, options, shapes=None):
        return SleepingEngine()

    def load(self, path, options):
        return SleepingEngine()


class SleepingKind(RuntimeKind):
    name: ClassVar[str] = "sleeping"
    purpose: ClassVar[str] = "rows that take a known time"
    times_amid_network: ClassVar[bool] = True

    def open(self, target):
        return SleepingRuntime(self)

    def found(self):
        return "1"


KIND = SleepingKind()


def install(folder: Path) -> None:
    """Make a folder one in which, put on the path, Python finds a package that adds this runtime."""
    about = folder / "sleeping-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: sleeping\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[trt_layermerge.runtimes]\nsleeping = {__name__}:KIND\n")
