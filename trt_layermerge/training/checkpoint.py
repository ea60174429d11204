"""The file a training run resumes from: weights and momenta in safetensors, the run's identity in its header.

It is written whole or not at all, and read with suspicion: a file that is cut short, altered, of another program or of
another run is refused with words that say which. How to train is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trt_layermerge.errors import IncompatibleError, TableError
from trt_layermerge.files import parse_json, write_bytes

CHECKPOINT_FORMAT = "trt_layermerge checkpoint"
VERSION = "2"
WEIGHT, MOMENTUM, AVERAGE = "weight/", "momentum/", "average/"

Identity = dict[str, str | int | float | bool | None]
"""Everything that makes a run what it is, under names that a user understands."""


@dataclass(frozen=True)
class Position:
    """How far a run has come.

    Args:
        step: Number of steps done.
        losses: Mean loss of each epoch that is done.
        running: Sum of the losses of the steps of the epoch that is not.
        finished: Whether there is nothing left to do.
        scaler: State of the scaling of losses; empty where they are not scaled.
        first_loss: Of the first step; what a loss that has diverged is told by.
        backoffs: How often the run has diverged, and begun again at half the learning rate.
    """

    step: int
    losses: tuple[float, ...] = ()
    running: float = 0.0
    finished: bool = False
    scaler: Mapping[str, int | float] = field(default_factory=dict)
    first_loss: float = 0.0
    backoffs: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A run at one moment between two steps.

    Args:
        identity: Which run it is.
        position: How far it has come.
        weights: The model's state dict.
        momenta: What the optimiser remembers of each parameter, named ``KIND/PARAMETER``; empty when the run is
            finished.
        averages: Moving averages of the weights; empty where there are none, or the run is finished.
    """

    identity: Identity
    position: Position
    weights: Mapping[str, Tensor]
    momenta: Mapping[str, Tensor]
    averages: Mapping[str, Tensor] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write it; a kill leaves the file before or the file after, never a part."""
        named = {WEIGHT + name: value for name, value in self.weights.items()}
        named |= {MOMENTUM + name: value for name, value in self.momenta.items()}
        named |= {AVERAGE + name: value for name, value in self.averages.items()}
        # Copies, because safetensors refuses tied weights and strides of its own.
        tensors = {name: torch.empty(t.shape, dtype=t.dtype).copy_(t.detach()) for name, t in named.items()}
        header = {
            "format": CHECKPOINT_FORMAT,
            "version": VERSION,
            "identity": json.dumps(self.identity),
            "position": json.dumps(asdict(self.position)),
        }
        header["seal"] = _checksum(header, tensors)
        write_bytes(path, save(tensors, header))

    @staticmethod
    def read(path: Path) -> Checkpoint:
        """Read it and see that it is whole.

        Raises:
            TableError: The file is damaged, or is something else.
            IncompatibleError: It was written by another version of this program.
        """
        header, tensors = _opened(path)
        try:
            if header["seal"] != _checksum(header, tensors):
                raise ValueError("its content is not what was written")
            return Checkpoint(
                _identity.validate_python(parse_json(header["identity"])),
                _position.validate_json(json.dumps(parse_json(header["position"]))),
                _under(WEIGHT, tensors),
                _under(MOMENTUM, tensors),
                _under(AVERAGE, tensors),
            )
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raise _damaged(path, ValueError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}")) from error
        except (KeyError, ValueError) as error:
            raise _damaged(path, error) from error

    def require(self, identity: Identity, path: Path) -> None:
        """See that this checkpoint belongs to a run.

        Raises:
            IncompatibleError: It does not; the message names what differs.
        """
        names = [*identity, *(name for name in self.identity if name not in identity)]
        there, here = ({name: run.get(name, "absent") for name in names} for run in (self.identity, identity))
        differ = [f"{name}: {there[name]} there, {here[name]} here" for name in names if there[name] != here[name]]
        if not differ:
            return
        more = [f"and {len(differ) - 5} more"] if len(differ) > 5 else []
        raise IncompatibleError(
            f"checkpoint {path} belongs to another run: " + "; ".join(differ[:5] + more),
            hint="repeat the command as it was, name another checkpoint, or delete this one to start afresh",
        )


_identity = TypeAdapter(Identity)
_position = TypeAdapter(with_config(ConfigDict(strict=True, extra="forbid"))(Position))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and every bit of the values, wherever they live and however they are laid out."""
    state = blake2b(digest_size=16)
    for name in sorted(tensors):
        # A copy, because of a single number any stride is contiguous, and not each can be viewed as bytes.
        tensor = tensors[name].detach().cpu().clone(memory_format=torch.contiguous_format)
        state.update(f"{name} {described(tensor)}\n".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def described(tensor: Tensor) -> str:
    """Type and shape, as in ``float32[16, 3, 3, 3]``."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _checksum(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Hash of all that a checkpoint says."""
    said = json.dumps([header["identity"], header["position"], digest(tensors)])
    return blake2b(said.encode(), digest_size=16).hexdigest()


def _opened(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a file that says it is a checkpoint of this version."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is not a dict
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if header.get("format") != CHECKPOINT_FORMAT:
        raise TableError(f"{path} is not a training checkpoint", hint="name another file; this one is left as it is")
    if header.get("version") != VERSION:
        raise IncompatibleError(
            f"checkpoint {path} is of version {header.get('version')}; this program reads version {VERSION}",
            hint="finish it with the program that began it, or delete it to start afresh",
        )
    return header, tensors


def _damaged(path: Path, error: Exception) -> TableError:
    return TableError(f"checkpoint {path} is damaged: {error}", hint="delete it; training starts afresh")


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
