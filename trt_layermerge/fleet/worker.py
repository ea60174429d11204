"""What a machine of a fleet does: see that it may take part, claim its device, measure. Ray makes an actor of it."""

from __future__ import annotations

import os
import pickle
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from trt_layermerge.errors import Caution, IncompatibleError, LayerMergeError
from trt_layermerge.fleet.claims import Claim, ClaimedError, claim, claim_new, remove_left
from trt_layermerge.fleet.messages import Busy, Fault, ItemResults, Joined, Refused
from trt_layermerge.fleet.work import Seat
from trt_layermerge.versions import source_checksum, versions


def source_identity() -> dict[str, str]:
    """Which code it is that computes here."""
    return versions() | {"source of trt_layermerge": source_checksum()}


class Worker:
    """One worker, in a process of its own."""

    def __init__(self) -> None:
        """Nothing is claimed yet."""
        self._claims: list[Claim] = []
        self._measure: Callable[[Sequence[Any]], Sequence[Any]] | None = None
        self._usual = os.environ.get("TMPDIR")

    def identity(self) -> dict[str, str]:
        """Asked before anything is unpickled here: other code may know no such thing."""
        return source_identity()

    def join(self, work: bytes, seat: Seat) -> Joined | Refused | Busy:
        """Claim the device, and open the work."""
        remove_left()
        if seat in ("gpu", "cpu") and not self._claims:
            try:
                self._claims.append(claim(_device(seat)))
            except ClaimedError as error:
                return Busy(str(error))
        self._claims.append(own := claim_new())
        tempfile.tempdir = os.environ["TMPDIR"] = str(own.path)
        opened, setting = pickle.loads(work)
        try:
            self._measure = opened(setting)
        except LayerMergeError as error:
            self.leave()
            return Refused(error.message, incompatible=isinstance(error, IncompatibleError))
        return Joined()

    def measure(self, items: Sequence[bytes]) -> ItemResults | Fault:
        """Measure items together."""
        assert self._measure is not None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", Caution)
            try:
                results = self._measure([pickle.loads(one) for one in items])
            except LayerMergeError as error:
                return Fault(type(error).__name__, error.message, error.hint)
            except Exception:
                return Fault("", traceback.format_exc())
        said = tuple(str(one.message) for one in caught if issubclass(one.category, Caution))
        return ItemResults(pickle.dumps(list(results)), said)

    def leave(self) -> None:
        """Remove what was made here, and let the device go."""
        tempfile.tempdir = self._usual
        if self._usual is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = self._usual
        while self._claims:
            self._claims.pop().release()


def _device(seat: Seat) -> str:
    """The name under which all fleets know the device of this worker. Ray shows a worker its own GPUs alone."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "0").replace("/", "-")
    return f"gpu-{shown}" if seat == "gpu" else "cpu"
