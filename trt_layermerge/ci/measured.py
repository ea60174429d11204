"""What a profile holds, as CI is told of it. A row that could not be measured surely is skipped: it fails nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from trt_layermerge.blocks.gap_signature import AnySignature
from trt_layermerge.ci.case import CiCase, CiReport, Measure, Outcome
from trt_layermerge.latency.profile import Profile, ProfileRow, file_name
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.runtimes.base import Device


def report_of_profile(profile: Profile, wanted: Iterable[AnySignature], notes: Iterable[str] = ()) -> CiReport:
    """The rows of a profile that are wanted, those first that are not ``ok``.

    Args:
        profile: The profile.
        wanted: Operations; one that is not in the profile is skipped, too.
        notes: What else is to be known.
    """
    device = profile.key.device
    rows = {one.key: profile.get(one) for one in wanted if not one.empty}
    cases = sorted((_case(key, row) for key, row in rows.items()), key=lambda case: case.outcome == "passed")
    counts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(case.verdict for case in cases).items())
    simulated = ("SIMULATED: no device was timed; the latencies are no measurements",) if device.simulated else ()
    return CiReport(
        suite=f"profile.{suite_of(device)}",
        title=f"{len(cases)} operations on {device.name}: {counts or 'none'}",
        notes=(*simulated, f"{device.runtime} {device.runtime_version}, {device.precision}, {profile.path}", *notes),
        columns=("latency, ms", "within", "samples"),
        cases=tuple(cases),
    )


def measure_of(timing: Timing) -> Measure:
    """A latency with its interval, in ms."""
    spread = max(timing.median_ns - timing.ci_low_ns, timing.ci_high_ns - timing.median_ns)
    return Measure(timing.median_ns / 1e6, "ms", spread / 1e6)


def suite_of(device: Device) -> str:
    """Names a device in a suite, without dots, which readers of JUnit take for packages."""
    about = f"{device.name} {device.runtime} {device.runtime_version} {device.precision}"
    return file_name(about).replace(".", "-")


def _case(key: str, row: ProfileRow | None) -> CiCase:
    if row is None:
        return CiCase(key, "skipped", "missing", "not measured yet", ("", "", ""), None)
    if row.timing is None:
        return CiCase(key, "skipped", row.status, row.reason, ("", "", ""), None)
    low, high = row.timing.ci_low_ns / 1e6, row.timing.ci_high_ns / 1e6
    figures = (f"{row.timing.median_ns / 1e6:.4f}", f"{low:.4f} to {high:.4f}", str(row.timing.samples))
    outcome: Outcome = "passed" if row.status == "ok" else "skipped"
    return CiCase(key, outcome, row.status, row.reason, figures, measure_of(row.timing))
