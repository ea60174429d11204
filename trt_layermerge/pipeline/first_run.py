"""All that a maintainer needs of a first run on someone's device, in one file that tells nothing of its owner."""

from __future__ import annotations

import json
import tempfile
import traceback
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from trt_layermerge import files
from trt_layermerge.anonymous import anonymous_value
from trt_layermerge.delivery.manifest import git_state
from trt_layermerge.errors import InputError, LayerMergeError, legible
from trt_layermerge.latency.measure import DeviceRunner, fill
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.profile import Profile, ProfileKey, ProfileRow
from trt_layermerge.latency.standard_table import standard_signatures
from trt_layermerge.pipeline.self_check import SelfCheck, check_itself
from trt_layermerge.progress import Progress
from trt_layermerge.runtimes.base import BuildOptions, Condition, Device, Runtime
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.runtimes.survey import Finding, survey
from trt_layermerge.versions import versions

POLICY = MeasurementPolicy(relative_ci=0.05, min_samples=15, max_seconds=0.5)
"""Of the standard table: seconds, not hours, and no plan rests on it."""


@dataclass(frozen=True)
class StandardRow:
    """A row of the standard table; times in us."""

    signature: str
    median_us: float | None
    low_us: float | None
    high_us: float | None
    status: str
    reason: str | None
    clock_mhz: float | None
    temperature_c: float | None

    @classmethod
    def of(cls, row: ProfileRow) -> StandardRow:
        """What a profile's row says."""
        t = row.timing
        return cls(
            signature=row.signature.key,
            median_us=None if t is None else t.median_ns / 1e3,
            low_us=None if t is None else t.ci_low_ns / 1e3,
            high_us=None if t is None else t.ci_high_ns / 1e3,
            status=row.status,
            reason=row.reason,
            clock_mhz=row.clock_mhz,
            temperature_c=row.temperature_c,
        )


@dataclass(frozen=True)
class Failure:
    """What went wrong: in what, in which words, and where in the source."""

    stage: str
    message: str
    hint: str | None
    trace: str


@dataclass(frozen=True)
class FirstRun:
    """A first run.

    Attributes:
        format: Of the file.
        date: In UTC.
        versions: Of Python and packages.
        commit: Of the checkout, where it is one.
        runtime: That was asked for.
        findings: What is here.
        device: That engines were built for; ``None`` where the runtime does not open.
        condition: Of the device, when all was done.
        self_check: What was built and timed; ``None`` where it failed.
        rows: Of the standard table; none where the self-check failed.
        failures: In order.
    """

    format: Literal[1]
    date: str
    versions: dict[str, str]
    commit: str | None
    runtime: str
    findings: tuple[Finding, ...]
    device: Device | None
    condition: Condition | None
    self_check: SelfCheck | None
    rows: tuple[StandardRow, ...]
    failures: tuple[Failure, ...]


def first_run(runtime: str, progress: Progress | None = None) -> FirstRun:
    """Look at the machine, check itself and measure the standard table; what fails is told, and raises nothing."""
    failures: list[Failure] = []
    opened: Runtime | None = None
    checked: SelfCheck | None = None
    rows: tuple[StandardRow, ...] = ()
    stage = "open the runtime"
    try:
        opened, stage = get_runtime(runtime), "self-check"
        checked, stage = check_itself(opened, BuildOptions()), "standard table"
        rows = _standard_rows(opened, progress)
    except Exception as error:  # whatever it is: this is the file that tells of it
        hint = error.hint if isinstance(error, LayerMergeError) else None
        failures.append(Failure(stage, str(error), hint, traceback.format_exc()))
    return FirstRun(
        format=1,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        commit=git_state(),
        runtime=runtime,
        findings=tuple(survey()),
        device=None if checked is None else checked.device,
        condition=None if opened is None else opened.condition(),
        self_check=checked,
        rows=rows,
        failures=tuple(failures),
    )


def write_first_run(path: Path, run: FirstRun) -> None:
    """Write it without paths, and without the names of users and hosts."""
    files.write_bytes(path, (json.dumps(anonymous_value(asdict(run)), indent=2) + "\n").encode())


def read_first_run(path: Path) -> FirstRun:
    """Read what ``write_first_run`` wrote; a stranger may have sent it, so texts are free of what a terminal obeys.

    Raises:
        InputError: The file cannot be read, or is none; the message names the first field that is wrong.
    """
    try:
        return TypeAdapter(FirstRun).validate_python(_printable(files.parse_json(files.read_bytes(path))))
    except OSError as error:
        raise InputError(f"cannot read the report {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole of it"
        raise InputError(f"{path} is no report of the doctor: {where}: {first['msg']}") from error
    except ValueError as error:
        raise InputError(f"{path} is no report of the doctor: the whole of it {error}") from error


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return "\n".join(map(legible, value.split("\n")))
    if isinstance(value, list):
        return list(map(_printable, value))
    return {legible(name): _printable(one) for name, one in value.items()} if isinstance(value, dict) else value


def _standard_rows(runtime: Runtime, progress: Progress | None) -> tuple[StandardRow, ...]:
    options = BuildOptions(isolated=runtime.kind.times_amid_network)
    key = ProfileKey.of(runtime.describe(options))
    with tempfile.TemporaryDirectory(prefix="trt_layermerge-") as folder:
        profile = Profile.open(Path(folder) / "standard.jsonl", key)
        fill(profile, standard_signatures(options.precision), DeviceRunner(runtime, options, POLICY), progress)
        return tuple(map(StandardRow.of, profile))
