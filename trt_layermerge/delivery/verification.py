"""Verification: does an engine do what the PyTorch network does, and is a delivery still what was delivered?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

from trt_layermerge.delivery.delivery_signature import PublicKey
from trt_layermerge.delivery.manifest import Manifest, read_manifest
from trt_layermerge.delivery.verified_engine import verified_engine
from trt_layermerge.errors import InputError, VerificationError
from trt_layermerge.files import write_bytes
from trt_layermerge.merging.proof import relative_error
from trt_layermerge.network.inputs import Values, as_tuple
from trt_layermerge.network.outputs import OUTPUT, output_names
from trt_layermerge.precision.tolerance import OUTPUT_TOLERANCE
from trt_layermerge.runtimes.base import Engine
from trt_layermerge.training.task import Batch

_INPUTS, _OUTPUTS = "inputs", "outputs"
"""What the names of recorded tensors begin with: ``inputs.NAME``, or ``inputs`` where there is one."""


@dataclass(frozen=True)
class Verification:
    """What was verified.

    Attributes:
        manifest: The manifest that was read.
        files: Number of files whose hashes are right.
        engine: Largest relative error of the engine against the recorded outputs of the PyTorch network.
        samples: Real inputs compared.
    """

    manifest: Manifest
    files: int
    engine: float
    samples: int


def engine_outputs(engine: Engine, batches: Iterable[Batch]) -> Iterator[tuple[Values, Values]]:
    """An engine's outputs for a data set, with the targets."""
    for inputs, target in batches:
        yield run_engine(engine, inputs), target


def run_engine(engine: Engine, inputs: Values) -> Values:
    """What an engine makes of any number of samples: one tensor, or several in the order of its outputs."""
    outputs = tuple(run_outputs(engine, inputs).values())
    return outputs[0] if len(outputs) == 1 else outputs


def run_outputs(engine: Engine, inputs: Values) -> dict[str, Tensor]:
    """An engine's outputs for any number of samples, in batches of its own size; the last one is filled up."""
    given = as_tuple(inputs)
    samples, size = len(given[0]), next(iter(engine.inputs.values()))[0]
    missing = -samples % size
    filled = {name: _filled(value, size) for name, value in zip(engine.inputs, given, strict=True)}
    batches = (slice(begin, begin + size) for begin in range(0, samples, size))
    results = [engine.run({name: value[part] for name, value in filled.items()}) for part in batches]
    made = {name: torch.from_numpy(np.concatenate([result[name] for result in results])) for name in engine.outputs}
    # Of each sample one row, or several: frames, or windows.
    return {name: values[: len(values) * samples // (samples + missing)] for name, values in made.items()}


def _filled(values: Tensor, size: int) -> NDArray[Any]:
    """Values with zeros behind them, up to a multiple of the size."""
    missing = -len(values) % size
    return np.ascontiguousarray(torch.cat([values, values.new_zeros(missing, *values.shape[1:])]).numpy())


def verify_engine(engine: Engine, module: nn.Module, inputs: Values, precision: str = "fp32") -> tuple[float, Values]:
    """Compare an engine with a PyTorch network on real inputs, each output on its own scale.

    Returns:
        The largest relative error, and the network's outputs.

    Raises:
        VerificationError: They differ by more than the precision's tolerance, a share of an output's largest value.
    """
    with torch.no_grad():
        outputs: Values = module.eval()(*as_tuple(inputs))
    expected = dict(zip(output_names(module), as_tuple(outputs), strict=True))
    return _compare(engine, inputs, expected, precision, "the PyTorch network"), outputs


def write_checks(
    path: Path, names: Iterable[str], inputs: Values, outputs: Values, output_names: Iterable[str] = (OUTPUT,)
) -> None:
    """Write real inputs and the PyTorch network's outputs, for whoever gets the engine to check it with.

    Args:
        path: A safetensors file. ``inputs`` holds the one input and ``outputs`` the one output; ``inputs.NAME`` and
            ``outputs.NAME`` each of several.
        names: Of the inputs.
        inputs: ``[samples, ...]`` each.
        outputs: ``[samples, ...]`` each.
        output_names: Of the outputs.
    """
    tensors = _recorded(_INPUTS, names, inputs) | _recorded(_OUTPUTS, output_names, outputs)
    write_bytes(path, save({name: values.contiguous() for name, values in tensors.items()}))


def _recorded(kind: str, names: Iterable[str], values: Values) -> dict[str, Tensor]:
    named = dict(zip(names, as_tuple(values), strict=True))
    return {kind if len(named) == 1 else f"{kind}.{name}": value for name, value in named.items()}


def verify_delivery(path: Path, *, strict: bool = False, signed_by: PublicKey | None = None) -> Verification:
    """Check a delivered engine: files, device, and outputs on the recorded inputs.

    Args:
        path: The manifest.
        strict: Whether ``require_strict`` must hold as well.
        signed_by: Who must have signed it; ``None`` for anyone, or no one.

    Raises:
        InputError: The manifest or a file is missing or damaged.
        VerificationError: It is not signed, a file is not the one that was delivered, or the engine computes something
            else.
        IncompatibleError: The engine was built for another device or runtime.
        RuntimeNotAvailableError: Its runtime is not here.
    """
    manifest = read_manifest(path, signed_by)
    hint = f"build it here: trt-layermerge build {path.parent / manifest.onnx} --batch {manifest.batch}"
    engine = verified_engine(path, manifest, hint, strict=strict, signed_by=signed_by)
    inputs, outputs = _read_checks(path.parent / manifest.checks, engine)
    error = _compare(engine, inputs, outputs, manifest.device.precision, "the recorded outputs of the PyTorch network")
    return Verification(manifest, len(manifest.files), error, len(inputs[0]))


def _compare(engine: Engine, inputs: Values, expected: Mapping[str, Tensor], precision: str, what: str) -> float:
    """The largest relative error of an engine's outputs."""
    if len(engine.inputs) != len(as_tuple(inputs)) or set(engine.outputs) != set(expected):
        raise VerificationError(f"the engine takes {', '.join(engine.inputs)} and gives {', '.join(engine.outputs)}")
    allowed, worst = OUTPUT_TOLERANCE[precision], 0.0
    for name, actual in run_outputs(engine, inputs).items():
        of = f" {name!r}" if len(expected) > 1 else ""
        if actual.shape != expected[name].shape:
            raise VerificationError(f"the engine gives{of} {list(actual.shape)}, {what} {list(expected[name].shape)}")
        error = relative_error(actual, expected[name])
        if error > allowed:
            raise VerificationError(
                f"the engine differs from {what} by {error:.1e} of the largest output{of} (allowed: {allowed:.0e})",
                hint="do not use it; please report this with the manifest",
            )
        worst = max(worst, error)
    return worst


def _read_checks(path: Path, engine: Engine) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """What ``write_checks`` wrote: the inputs in the order of the engine's, and the outputs by name."""
    try:
        tensors = load_file(path)
        inputs, outputs = (
            _named(tensors, kind, of) for kind, of in ((_INPUTS, engine.inputs), (_OUTPUTS, engine.outputs))
        )
    except (safetensors.SafetensorError, KeyError) as error:
        raise InputError(f"{path} does not hold inputs and outputs: {error}") from error
    return tuple(inputs.values()), outputs


def _named(tensors: Mapping[str, Tensor], kind: str, names: Iterable[str]) -> dict[str, Tensor]:
    names = tuple(names)
    alone = len(names) == 1 and kind in tensors
    return {name: tensors[kind if alone else f"{kind}.{name}"] for name in names}
