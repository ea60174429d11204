"""A report as the JSON that custom benchmark actions take (``customSmallerIsBetter``): name, unit, value, range."""

from __future__ import annotations

import json

from trt_layermerge.ci.case import CiReport, printable


def benchmark_json(report: CiReport) -> bytes:
    """A list with an entry for each case that measured something."""
    entries = [
        {
            "name": printable(case.name),
            "unit": case.measure.unit,
            "value": case.measure.value,
            "range": f"± {case.measure.spread:.4g}",
        }
        for case in report.cases
        if case.measure is not None
    ]
    return (json.dumps(entries, indent=2, allow_nan=False) + "\n").encode()
