"""What the doubles of this folder are told, by the environment variable DOUBLE, as JSON; other processes see it too."""

from __future__ import annotations

import json
import os
from typing import Any

DEFAULTS: dict[str, Any] = {
    "version": "11.4.0.106",  # of TensorRT
    "rtx_version": "1.7.1.116",  # of TensorRT-RTX
    "no_builder": False,  # trt.Builder() fails, as it does without a driver
    "parser_refuses": None,  # an operator
    "builder_fails": None,  # what the builder says before it returns None
    "skipped_tactics": 0,  # tactics skipped for lack of memory
    "only_kernel": None,  # size of a convolution, without which a model is built whatever is said above
    "abort": False,  # the process dies while it builds
    "build_seconds": 0.0,  # how long a build takes besides
    "build_noise": 0.0,  # share by which builds differ that know of no other's timings
    "knobs": {},  # of the compiler: a knob with its value, and how much longer a run then takes
    "engine_refused": False,  # an engine cannot be loaded
    "drops_precision": False,  # an engine computes in float32, whatever the model says
    "run_us": None,  # one run of whatever engine on the GPU's clock; None for what it takes here
    "noise": 0.0,  # share by which runs differ
    "memory_bytes": 2**33,  # of the GPU
    "lost_after": None,  # runs after which the GPU is lost
    "nvml": True,  # NVML answers
    "clock_mhz": 1545,
    "temperature_c": 61,
    "power_mw": 180_000,
    "reasons": 0,  # why the clock is held back, NVML's bits
    "may_lock_clocks": False,
}


def setting(name: str) -> Any:
    """One of ``DEFAULTS``, or what DOUBLE says instead."""
    told = json.loads(os.environ.get("DOUBLE", "{}"))
    if unknown := told.keys() - DEFAULTS.keys():
        raise KeyError(f"the doubles do not know {sorted(unknown)}")
    return told.get(name, DEFAULTS[name])
