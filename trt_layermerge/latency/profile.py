"""The profile: everything measured on one device, one line a signature, in a text file fit to commit and to diff.

How it is kept is ``journal``'s business; here is what its rows mean. Where a signature has several rows the last one
counts; two runs at once, and a second try after a failure, leave such files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from trt_layermerge.blocks.gap_signature import AnySignature, parse_signature
from trt_layermerge.journal import Format, Journal, Record, Types, differences, typed, write_whole
from trt_layermerge.latency.statistics import Timing, pooled_spread
from trt_layermerge.runtimes.base import Device

Status = Literal["ok", "degraded", "failed"]


@dataclass(frozen=True)
class ProfileKey:
    """What all rows of a profile have in common.

    Attributes:
        device: What they were measured on, without its compute capability: the name says as much.
    """

    device: Device

    @classmethod
    def of(cls, device: Device) -> ProfileKey:
        """The key under which latencies of a device are kept."""
        return cls(replace(device, compute_capability=None))

    @classmethod
    def read(cls, record: Record) -> ProfileKey:
        """The key that ``record`` is of."""
        return cls(Device(**{_ON_DISK.get(name, name): value for name, value in record.items()}))

    @property
    def record(self) -> Record:
        """As it is written: the fields of the device, its name under ``device``."""
        return {name: getattr(self.device, _ON_DISK.get(name, name)) for name in _KEY_TYPES}

    def differences(self, other: ProfileKey) -> list[str]:
        """What differs, in words: ``threads: 1, here 2``."""
        return differences(self.record, other.record)


@dataclass(frozen=True)
class ProfileRow:
    """What is known about one signature.

    Attributes:
        signature: What was timed.
        timing: Its latency; ``None`` where it failed.
        status: ``ok``; ``degraded``: measured, but less surely than the policy asks; ``failed``: cannot be measured.
        reason: Why it is not ``ok``, in words.
        drift: Median of the sentinel while this was measured, over its first median in the same run.
        simulated: No device was timed.
        clock_mhz: The device's clock rate, where it tells.
        temperature_c: The device's temperature, where it tells.
        host_ns: Median of one request by the host's clock, inputs and outputs copied; ``None`` where nothing is.
    """

    signature: AnySignature
    timing: Timing | None
    status: Status = "ok"
    reason: str | None = None
    drift: float | None = None
    simulated: bool = False
    clock_mhz: float | None = None
    temperature_c: float | None = None
    host_ns: int | None = None

    def __post_init__(self) -> None:
        """Refuse rows that say two things at once."""
        if self.status not in get_args(Status):
            raise ValueError(f"status {self.status!r} is none of {', '.join(get_args(Status))}")
        if (self.status == "failed") != (self.timing is None):
            raise ValueError(f"a row that is {self.status} {'needs a' if self.timing is None else 'has no'} timing")
        if (self.status == "ok") != (self.reason is None):
            raise ValueError(f"a row that is {self.status} {'needs a' if self.reason is None else 'has no'} reason")


class Profile:
    """One profile on disk and in memory. ``Profile.open`` makes it.

    Attributes:
        build_spread: Standard deviation from build to build as a share of the latency, of all operations that were
            built several times together; ``None`` where none was.
    """

    build_spread: float | None

    def __init__(self, journal: Journal) -> None:
        """Read the rows of a journal."""
        self._journal, self._key = journal, ProfileKey.read(journal.key)
        # By text, not by value: the bias of a signature without a convolution is not written, and does not matter.
        self._rows: dict[str, ProfileRow] = {}
        self._written: list[str] = []
        for number, record in journal:
            try:
                row = _row(record)
            except ValueError as error:
                raise journal.malformed(number, error) from error
            self._hold(row)
        self._pool()

    def _pool(self) -> None:
        """Find what builds differ by, once for all who ask."""
        self.build_spread = pooled_spread([row.timing for row in self._rows.values() if row.timing is not None])

    @classmethod
    def open(cls, path: Path, key: ProfileKey) -> Profile:
        """Read a profile, or begin one.

        Raises:
            IncompatibleError: The profile belongs to something else; the message says what differs.
            TableError: The file is not a profile, or a line is not a row. The file is left as it is.
        """
        return cls(Journal.open(path, _FORMAT, key.record))

    def reread(self) -> None:
        """Take in what other processes have added.

        Raises:
            TableError: See ``open``.
        """
        self.__init__(Journal.open(self.path, _FORMAT, self._key.record))  # type: ignore[misc]

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Read a profile, whatever its key.

        Raises:
            IncompatibleError: It is of another version of the format.
            TableError: The file is not a profile, or a line is not a row.
        """
        return cls(Journal.read(path, _FORMAT))

    @classmethod
    def write(cls, path: Path, key: ProfileKey, rows: Iterable[ProfileRow]) -> Profile:
        """Write a whole profile, in the place of what is there, in the order of its signatures."""
        write_whole(path, _FORMAT, key.record, map(_row_fields, sorted(rows, key=lambda row: row.signature.key)))
        return cls.read(path)

    @staticmethod
    def path_for(root: Path, key: ProfileKey) -> Path:
        """Where a profile lies: ``<root>/<device>/<runtime>-<version>-<precision>.jsonl``, with threads if several."""
        device = key.device
        name = f"{file_name(device.runtime)}-{file_name(device.runtime_version)}-{file_name(device.precision)}"
        threads = "" if device.threads == 1 else f"-{device.threads}threads"
        place = f"simulated {device.name}" if device.simulated else device.name
        return root / file_name(place) / f"{name}{threads}.jsonl"

    @property
    def path(self) -> Path:
        """The file."""
        return self._journal.path

    @property
    def key(self) -> ProfileKey:
        """What all rows have in common."""
        return self._key

    @property
    def sha256(self) -> str:
        """Hash of the file as it is now."""
        return self._journal.sha256

    def get(self, signature: AnySignature) -> ProfileRow | None:
        """The row of a signature, whatever its status."""
        return self._rows.get(signature.key)

    def add(self, row: ProfileRow) -> None:
        """Append a row; when this returns it is on disk."""
        self._journal.append(_row_fields(row))
        self._hold(row)
        if row.timing is not None and row.timing.build_spread is not None:
            self._pool()

    def _hold(self, row: ProfileRow) -> None:
        self._rows[row.signature.key] = row
        self._written.append(row.signature.key)

    @property
    def in_order(self) -> bool:
        """Whether the file is as ``write`` writes it: so it tells nothing of who measured a row when."""
        return self._written == sorted(self._rows)

    def put_in_order(self) -> None:
        """Write the file in order, unless it is; rows that others took the place of go."""
        if not self.in_order:
            self.__init__(Profile.write(self.path, self._key, self)._journal)  # type: ignore[misc]

    def expected(self, signature: AnySignature) -> Timing | None:
        """What an engine built tomorrow is expected to take; ``None`` where nothing is known.

        The interval of what was built once is widened by what those differ by that were built several times.
        """
        row = self.get(signature)
        if row is None or row.timing is None or row.timing.builds > 1:
            return None if row is None else row.timing
        return row.timing.with_builds(self.build_spread)

    def supposing(self, rows: Iterable[ProfileRow]) -> Profile:
        """The same in memory with rows of signatures that it does not hold; it is for looking at, not for adding to."""
        supposed = copy(self)
        supposed._rows = {row.signature.key: row for row in rows} | self._rows
        return supposed

    def __len__(self) -> int:
        """Number of signatures."""
        return len(self._rows)

    def __iter__(self) -> Iterator[ProfileRow]:
        """The rows, in the order their signatures were first met."""
        return iter(self._rows.values())


def read_timing(record: Mapping[str, Any]) -> Timing:
    """The timing in a record that may hold more.

    Raises:
        ValueError: A field is missing, of another type, or contradicts another; goes on from "the line".
    """
    told = _UNTOLD | {name: record[name] for name in _TIMING_TYPES if name in record}
    values = typed(told, _TIMING_TYPES)
    timing = Timing(**values)
    if not 0 <= timing.ci_low_ns <= timing.median_ns <= timing.ci_high_ns:
        raise ValueError("has a confidence interval that does not hold its median")
    if not 0 <= (timing.p90_ns or 0) <= (timing.p99_ns or _LONGEST_NS) or not 0 <= (timing.build_spread or 0.0) <= 1e6:
        raise ValueError("has percentiles that are out of order, or builds that differ by less than nothing")
    if max(timing.ci_high_ns, timing.p95_ns, timing.p99_ns or 0, -timing.p5_ns) > _LONGEST_NS:
        raise ValueError(f"has a latency of more than {_LONGEST_NS} ns")
    return timing


def timing_fields(timing: Timing) -> Record:
    """A timing as ``read_timing`` reads it."""
    return {name: value for name, value in asdict(timing).items() if value is not None or name not in _UNTOLD}


def _row(record: Record) -> ProfileRow:
    """Build a row from its record.

    Raises:
        ValueError: A field is missing, too many, of another type, or contradicts another.
    """
    timed = record.get("status") != "failed"
    values = typed({"host_ns": None} | record, _ROW_TYPES, also=tuple(_TIMING_TYPES) if timed else ())
    if not 0 <= (values["host_ns"] or 0) <= _LONGEST_NS:
        raise ValueError(f"has {values['host_ns']} as host_ns")
    return ProfileRow(parse_signature(values.pop("signature")), read_timing(record) if timed else None, **values)


def _row_fields(row: ProfileRow) -> dict[str, Any]:
    timing = {} if row.timing is None else timing_fields(row.timing)
    others = {
        field.name: getattr(row, field.name) for field in fields(row) if field.name not in ("signature", "timing")
    }
    if row.host_ns is None:
        del others["host_ns"]
    return {"signature": row.signature.key, "status": others.pop("status")} | timing | others


def file_name(text: str) -> str:
    """A text as it is fit for a file name: ``Intel(R) Xeon(R) Processor`` becomes ``intel-xeon-processor``."""
    plain = re.sub(r"\((r|tm|c)\)", " ", text.lower())
    return re.sub(r"[^a-z0-9._]+", "-", plain).strip("-.") or "unknown"


_LONGEST_NS = 2**63 - 1
"""What planning counts in; three centuries."""

_NONE = type(None)
_ON_DISK = {"device": "name"}
"""Fields of the key that are called otherwise than those of ``Device``."""

_KEY_TYPES: Types = dict.fromkeys(
    ("device", "driver", "runtime", "runtime_version", "precision", "timing", "threads", "clocks", "settings"), (str,)
) | {"driver": (str, _NONE), "threads": (int,), "simulated": (bool,)}
_UNTOLD: Record = {"p90_ns": None, "p99_ns": None, "build_spread": None}
"""Fields that were added, and are left out where there is nothing to tell: older rows are as good as ever."""

_TIMING_TYPES: Types = {field.name: (int,) for field in fields(Timing)} | {
    "cv": (float, int),
    "p90_ns": (int, _NONE),
    "p99_ns": (int, _NONE),
    "build_spread": (float, int, _NONE),
}
_ROW_TYPES: Types = {
    "signature": (str,),
    "status": (str,),
    "reason": (str, _NONE),
    "drift": (float, int, _NONE),
    "simulated": (bool,),
    "clock_mhz": (float, int, _NONE),
    "temperature_c": (float, int, _NONE),
    "host_ns": (int, _NONE),
}
_FORMAT = Format(
    "profile",
    1,
    _KEY_TYPES,
    "restore the file from version control, or remove the line to have its signature measured again",
    defaults={"settings": "", "simulated": False},
    renewing=frozenset({"driver"}),
)
