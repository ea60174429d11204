"""Weights as training scripts save them: safetensors, or a PyTorch state dict, which is read with ``weights_only``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from trt_layermerge.errors import ModelError
from trt_layermerge.network.plain import weight_faults

_USUAL = ("", "state_dict", "model", "model_state_dict", "params", "net")
"""Where a file keeps the weights that were trained, those that a script goes on from first."""

_COUNTERS = ("total_ops", "total_params", "n_averaged", "num_batches_tracked")
"""What profilers, averaging and norms count, beside the weights."""

_AVERAGED = re.compile(r"ema|swa|averag|shadow", re.IGNORECASE)
"""In the keys of weights that are means over the course of training."""

_COMPILED = "_orig_mod."


@dataclass(frozen=True)
class _Entry:
    """One state dict of a file, with names as the model has them.

    Attributes:
        key: Where it lies in the file, such as ``state_dict_ema``; empty for the file itself.
        state: The weights.
        notes: What was done to their names.
        problems: What does not fit the model.
    """

    key: str
    state: Mapping[str, Tensor]
    notes: tuple[str, ...]
    problems: tuple[str, ...]


def load_weights(module: nn.Module, path: Path) -> tuple[str, ...]:
    """Load a checkpoint into a network, all or nothing.

    1. One prefix that all names share, such as ``module.`` or ``model.``, is taken off where the model has none such;
       what ``torch.compile`` puts into names is, anywhere.
    2. Counters that are no weights are left out; those of norms may be missing.
    3. Of several state dicts that fit, the one that was trained is taken. ``FILE#KEY`` takes the one of that key.

    Returns:
        What was done, and what lies beside, in words.

    Raises:
        ModelError: The file is missing, damaged or of another kind, or its names or shapes do not fit.
    """
    path, key = _parted(path)
    entries = [_entry(key, state, module) for key, state in _state_dicts("", _read(path))]
    if not entries:
        raise ModelError(f"{path} does not hold a state dict", hint="save model.state_dict(), not the model itself")
    if key and key not in [entry.key for entry in entries]:
        found = ", ".join(f"{path}#{entry.key}" for entry in entries if entry.key) or "weights without a key"
        raise ModelError(f"{path} has no state dict {key!r}", hint=f"it has {found}")
    wanted = [entry for entry in entries if not key or entry.key == key]
    fitting = [entry for entry in wanted if not entry.problems]
    taken = min(fitting or wanted, key=lambda entry: _USUAL.index(entry.key) if entry.key in _USUAL else len(_USUAL))
    if taken.problems:
        shown = "; ".join(taken.problems[:3])
        shown += f"; and {len(taken.problems) - 3} more" if len(taken.problems) > 3 else ""
        raise ModelError(f"{path} does not fit the model: {shown}", hint="is it the checkpoint of this very model?")
    if faults := weight_faults(taken.state, module.state_dict()):
        raise ModelError(f"{path} does not hold weights: {'; '.join(faults[:3])}", hint="save model.state_dict()")
    module.load_state_dict(dict(taken.state), strict=False)  # strictness was checked above, with better words
    others = [entry.key for entry in fitting if entry is not taken]
    notes = [f"{path}: {note}" for note in taken.notes]
    if others:
        kind = "averaged weights lie" if all(_AVERAGED.search(other) for other in others) else "others that fit lie"
        offered = ", ".join(f"--weights {path}#{other}" for other in others)
        notes.append(f"{path}: weights taken from {taken.key!r}; {kind} beside: {offered}")
    return tuple(notes)


def _parted(path: Path) -> tuple[Path, str]:
    """A file, and the key behind ``#`` in its name."""
    name, mark, key = path.name.rpartition("#")
    return (path, "") if not mark or path.exists() else (path.with_name(name), key)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read is an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may drive the readers into any of theirs
        why = str(error).strip().partition("\n")[0] or "it is damaged, or ends too early"
        raise ModelError(
            f"cannot read the weights file {path}: {why}",
            hint="it must be a whole .safetensors file, or a state dict saved with torch.save",
        ) from error


def _state_dicts(key: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Every mapping of names to tensors in a file, with its key; an optimiser numbers what it keeps."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value) or depth > 2:
        return
    if all(isinstance(entry, Tensor) for entry in value.values()) and (value or not depth):
        yield key, value
    for name, entry in value.items():
        yield from _state_dicts(f"{key}.{name}" if key else name, entry, depth + 1)


def _entry(key: str, state: Mapping[str, Tensor], module: nn.Module) -> _Entry:
    """A state dict brought to the model's names, as far as the rules of ``load_weights`` go."""
    expected, notes = module.state_dict(), []
    if any(_COMPILED in name for name in state):
        state = {name.replace(_COMPILED, ""): value for name, value in state.items()}
        notes.append(f"{_COMPILED!r} of torch.compile taken out of the names")
    counters = [name for name in state if name not in expected and name.rpartition(".")[2] in _COUNTERS]
    weights = {name: value for name, value in state.items() if name not in counters}
    if prefix := _prefix(weights, expected):
        weights = {name.removeprefix(prefix): value for name, value in state.items()}
        counters = [name for name in weights if name not in expected and name.rpartition(".")[2] in _COUNTERS]
        weights = {name: value for name, value in weights.items() if name not in counters}
        notes.append(f"prefix {prefix!r} taken off all names")
    if left := sorted({name.rpartition(".")[2] for name in counters}):
        notes.append(f"left out what is no weight: {', '.join(left)}")
    return _Entry(key, weights, tuple(notes), tuple(_problems(weights, expected)))


def _prefix(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What all names begin with, up to a dot, and without which most of them are the model's."""
    best, most = "", len(set(state) & set(expected))
    prefix, names = "", list(state)
    while names and all(name.startswith(names[0].partition(".")[0] + ".") for name in names):
        first = names[0].partition(".")[0] + "."
        prefix, names = prefix + first, [name.removeprefix(first) for name in names]
        if (count := len(set(names) & set(expected))) > most:
            best, most = prefix, count
    return best


def _problems(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Iterator[str]:
    for name, value in expected.items():
        if name in state and state[name].shape != value.shape:
            yield f"{name} is {tuple(state[name].shape)} in the file, {tuple(value.shape)} in the model"
    yield from (f"{name} is missing" for name in expected if name not in state and "num_batches_tracked" not in name)
    yield from (f"{name} is not in the model" for name in state if name not in expected)
