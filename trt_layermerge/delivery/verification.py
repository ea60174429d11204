"""Verification: does an engine do what the PyTorch network does, and is a delivery still what was delivered?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trt_layermerge.delivery.export import OUTPUT
from trt_layermerge.delivery.integrity import check_file, fitting_runtime
from trt_layermerge.delivery.manifest import Manifest, read_manifest
from trt_layermerge.errors import InputError, VerificationError
from trt_layermerge.files import write_bytes
from trt_layermerge.merging.proof import relative_error
from trt_layermerge.network.inputs import Values, as_tuple
from trt_layermerge.precision.tolerance import OUTPUT_TOLERANCE
from trt_layermerge.runtimes.base import BuildOptions, Engine
from trt_layermerge.training.task import Batch

_INPUTS = "inputs."
"""What the names of recorded inputs begin with, where there are several."""


@dataclass(frozen=True)
class Verification:
    """What was verified.

    Attributes:
        manifest: The manifest that was read.
        files: Number of files whose hashes are right.
        engine: Relative error of the engine against the recorded outputs of the PyTorch network.
        samples: Real inputs compared.
    """

    manifest: Manifest
    files: int
    engine: float
    samples: int


def engine_outputs(engine: Engine, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """An engine's outputs for a data set, with the targets."""
    for inputs, target in batches:
        yield run_engine(engine, inputs), target


def run_engine(engine: Engine, inputs: Values) -> Tensor:
    """An engine's output for any number of samples, in batches of its own size; the last one is filled up."""
    given = as_tuple(inputs)
    samples, size = len(given[0]), next(iter(engine.inputs.values()))[0]
    filled = {name: _filled(value, size) for name, value in zip(engine.inputs, given, strict=True)}
    batches = (slice(begin, begin + size) for begin in range(0, samples, size))
    outputs = [engine.run({name: value[part] for name, value in filled.items()})[OUTPUT] for part in batches]
    return torch.from_numpy(np.concatenate(outputs))[:samples]


def _filled(values: Tensor, size: int) -> NDArray[Any]:
    """Values with zeros behind them, up to a multiple of the size."""
    missing = -len(values) % size
    return np.ascontiguousarray(torch.cat([values, values.new_zeros(missing, *values.shape[1:])]).numpy())


def verify_engine(engine: Engine, module: nn.Module, inputs: Values, precision: str = "fp32") -> tuple[float, Tensor]:
    """Compare an engine with a PyTorch network on real inputs.

    Returns:
        The relative error, and the network's outputs.

    Raises:
        VerificationError: They differ by more than the precision's tolerance, a share of the largest output.
    """
    with torch.no_grad():
        expected = module.eval()(*as_tuple(inputs))
    return _compare(engine, inputs, expected, precision, "the PyTorch network"), expected


def write_checks(path: Path, names: Iterable[str], inputs: Values, outputs: Tensor) -> None:
    """Write real inputs and the PyTorch network's outputs, for whoever gets the engine to check it with.

    Args:
        path: A safetensors file. ``outputs`` holds the outputs; ``inputs`` the one input, and ``inputs.NAME`` each of
            several.
        names: Of the inputs.
        inputs: ``[samples, ...]`` each.
        outputs: ``[samples, ...]``.
    """
    named = dict(zip(names, as_tuple(inputs), strict=True))
    tensors = {"inputs" if len(named) == 1 else f"{_INPUTS}{name}": values for name, values in named.items()}
    write_bytes(path, save({name: values.contiguous() for name, values in (tensors | {"outputs": outputs}).items()}))


def verify_delivery(path: Path) -> Verification:
    """Check a delivered engine: files, device, and outputs on the recorded inputs.

    Raises:
        InputError: The manifest or a file is missing or damaged.
        VerificationError: A file is not the one that was delivered, or the engine computes something else.
        IncompatibleError: The engine was built for another device or runtime.
        RuntimeNotAvailableError: Its runtime is not here.
    """
    manifest = read_manifest(path)
    for name, expected in manifest.files.items():
        check_file(path.parent / name, expected)
    device = manifest.device
    options = BuildOptions(threads=device.threads, precision=device.precision, batches=manifest.batches)
    hint = f"build it here: trt-layermerge build {path.parent / manifest.onnx} --batch {manifest.batch}"
    runtime = fitting_runtime(path, device, options, hint)
    engine = runtime.load(path.parent / manifest.engine, options)
    inputs, outputs = _read_checks(path.parent / manifest.checks, tuple(engine.inputs))
    error = _compare(engine, inputs, outputs, device.precision, "the recorded outputs of the PyTorch network")
    return Verification(manifest, len(manifest.files), error, len(outputs))


def _compare(engine: Engine, inputs: Values, expected: Tensor, precision: str, what: str) -> float:
    if len(engine.inputs) != len(as_tuple(inputs)) or OUTPUT not in engine.outputs:
        raise VerificationError(f"the engine takes {', '.join(engine.inputs)} and gives {', '.join(engine.outputs)}")
    actual = run_engine(engine, inputs)
    if actual.shape != expected.shape:
        raise VerificationError(f"the engine gives {list(actual.shape)}, {what} {list(expected.shape)}")
    error, allowed = relative_error(actual, expected), OUTPUT_TOLERANCE[precision]
    if error > allowed:
        raise VerificationError(
            f"the engine differs from {what} by {error:.1e} of the largest output (allowed: {allowed:.0e})",
            hint="do not use it; please report this with the manifest",
        )
    return error


def _read_checks(path: Path, names: tuple[str, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
    """What ``write_checks`` wrote: the inputs in the order of their names, and the outputs."""
    try:
        tensors = load_file(path)
        outputs = tensors.pop("outputs")
        if len(names) == 1 and "inputs" in tensors:
            return (tensors["inputs"],), outputs
        return tuple(tensors[f"{_INPUTS}{name}"] for name in names), outputs
    except (safetensors.SafetensorError, KeyError) as error:
        raise InputError(f"{path} does not hold inputs and outputs: {error}") from error
