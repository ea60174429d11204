"""The correction that ``profile validate`` found, kept beside the original's latency for all plans of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.journal import Types, typed
from trt_layermerge.pipeline.fidelity_correction import Correction, FidelityErrors
from trt_layermerge.pipeline.keyed_file import read_keyed, write_keyed
from trt_layermerge.pipeline.session import Session

_NAME = "correction"
_NUMBER = (float, int)
_TYPES: Types = {"kind": (str,), "saved": _NUMBER, "removed": _NUMBER, "weights": _NUMBER, "unseen": (dict,)}
_ERROR_TYPES: Types = {one.name: _NUMBER for one in fields(FidelityErrors)}


def keep_correction(session: Session, correction: Correction) -> None:
    """Have plans of a network corrected from now on; or no longer, where nothing is systematic.

    With other weights, too: no latency depends on them.
    """
    path = session.job.correction_file
    if correction.kind == "none":
        path.unlink(missing_ok=True)
    else:
        write_keyed(path, _NAME, _key(session), asdict(correction))


def kept_correction(session: Session) -> Correction | None:
    """The correction of these operations, device, batch and inputs, if there is one.

    Raises:
        TableError: It is damaged.
    """
    return read_correction(session.job.correction_file, _key(session))


def read_correction(path: Path, key: Mapping[str, Any]) -> Correction | None:
    """The correction of a file, if it is there and of that key."""
    return read_keyed(path, _NAME, key, _read, hint="remove it, and run trt-layermerge profile validate again")


def _key(session: Session) -> dict[str, Any]:
    kept = (sizes[0] for choice, sizes in session.sized.items() if choice.kind is Kind.KEEP)
    operations = "\n".join(signature.key for one in kept for signature in one.signatures)
    alike = {name: one for name, one in session.timed_key.items() if name != "weights"}
    return {"operations": sha256(operations.encode()).hexdigest(), **alike}


def _read(record: dict[str, Any]) -> Correction:
    values = typed({name: record[name] for name in _TYPES if name in record}, _TYPES)
    errors = FidelityErrors(**typed(values.pop("unseen"), _ERROR_TYPES))
    correction = Correction(unseen=errors, **values)
    if not correction.possible:
        raise ValueError("corrects by more than there is, or in no known way")
    return correction
