"""A builder library that does as the environment variable FAULT says; its plans tell how it was configured.

For what surrounds a build only: a process that crashes, hangs or answers nonsense. What TensorRT itself is like is the
business of the double in tests/doubles.
"""

from __future__ import annotations

import enum
import json
import os
import signal
import subprocess
import sys
import time

__version__ = os.environ.get("VERSION", "10.16.1.11")
FAULT = os.environ.get("FAULT", "")
SIMULATED = True

Severity = enum.IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE", start=0)
NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
MemoryPoolType = enum.IntEnum("MemoryPoolType", "WORKSPACE")
BuilderFlag = enum.IntEnum("BuilderFlag", "TF32")
ProfilingVerbosity = enum.IntEnum("ProfilingVerbosity", "DETAILED")
DataType = enum.IntEnum("DataType", "FLOAT HALF INT8 INT32", start=0)
TensorFormat = enum.IntEnum("TensorFormat", "LINEAR CHW2 HWC8 CHW4 CHW16 CHW32 DHWC8 CDHW32 HWC", start=0)


class ILogger:
    Severity = Severity


class Tensor:
    def __init__(self, name, shape, dtype):
        self.name, self.shape, self.dtype, self.allowed_formats = name, shape, dtype, None


class Network:
    num_inputs, num_outputs = 2, 1

    def __init__(self):
        self.tensors = [Tensor("x", (-1, 3, 8, 8), DataType.FLOAT), Tensor("scale", (3,), DataType.FLOAT)]
        self.output = Tensor("y", (-1, 4, 8, 8), DataType.HALF)

    def get_input(self, index):
        return self.tensors[index]

    def get_output(self, index):
        return self.output


class ParserError:
    def __init__(self, name, operator, text):
        self._given = name, operator, text

    def node_name(self):
        return self._given[0]

    def node_operator(self):
        return self._given[1]

    def desc(self):
        return self._given[2]


class OnnxParser:
    def __init__(self, network, logger):
        self._errors = [ParserError("conv7", "Conv", "kernel too odd"), ParserError("", "", "no such file")]
        self.num_errors = 0 if FAULT == "silent parser" else len(self._errors)

    def parse_from_file(self, path):
        return "parser" not in FAULT

    def get_error(self, index):
        return self._errors[index]


class Config:
    def __init__(self):
        self.told = {"flags": ["TF32"], "profiles": 0}

    def set_memory_pool_limit(self, pool, size):
        self.told[pool.name] = size

    def set_flag(self, flag):
        self.told["flags"].append(flag.name)

    def clear_flag(self, flag):
        self.told["flags"].remove(flag.name)

    def add_optimization_profile(self, profile):
        self.told |= {"profiles": 1, "shapes": profile.shapes}
        return -1 if FAULT == "profile" else 0


class Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, least, usual, most):
        self.shapes[name] = [least, usual, most]


class Builder:
    def __init__(self, logger):
        self._logger = logger
        if FAULT == "start":
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags):
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return Network()

    def create_builder_config(self):
        return Config()

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        self._logger.log(Severity.INFO, "nobody keeps this")
        self._logger.log(Severity.WARNING, f"{FAULT or 'nothing'} is about to happen")
        _happen(self._logger)
        if FAULT == "none":
            return None
        told = config.told | {
            "level": getattr(config, "builder_optimization_level", None),
            "verbosity": config.profiling_verbosity.name,
            "formats": {t.name: t.allowed_formats for t in [*network.tensors, network.output]},
        }
        return json.dumps(told).encode()


def _happen(logger):
    if FAULT == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if FAULT == "exit":
        os._exit(7)
    if FAULT == "raise":
        raise RuntimeError("out of everything")
    if FAULT == "garbage":
        with open(sys.argv[1], "w") as file:
            file.write(os.environ["GARBAGE"])
        os._exit(0)
    if FAULT == "hang":
        child = subprocess.Popen(["sleep", "600"])
        with open(os.environ["CHILD"], "w") as file:
            file.write(str(child.pid))
        time.sleep(600)
    if FAULT == "memory":
        text = "Skipping tactic 3 due to insufficient memory on requested size of 629145600 detected for tactic 0x9d."
        logger.log(Severity.WARNING, text)
        logger.log(Severity.VERBOSE, "Some tactics do not have sufficient workspace memory to run.")
        logger.log(Severity.WARNING, "Tactic Device request: 600MB Available: 302MB. Device memory is insufficient.")
