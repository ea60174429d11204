"""``python -m tests.gpu.recording TESTS FILE``: run tests; write what came of each, and the figures they recorded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest


class Recorder:
    """A plugin that keeps outcomes, and what tests told with ``record_property``; on disk after each, for crashes."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._tests: dict[str, dict[str, Any]] = {}
        self._figures: dict[str, Any] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.rpartition("/")[2]
        known = self._tests.setdefault(name, {"name": name, "outcome": "unfinished", "seconds": 0.0})
        known["seconds"] = round(known["seconds"] + report.duration, 3)
        if (report.when, report.outcome) == ("call", "passed"):
            known["outcome"] = "passed"
        elif report.outcome != "passed":
            known["outcome"] = report.outcome
            known["why"] = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        self._figures |= dict(report.user_properties)
        self._target.write_text(json.dumps({"tests": list(self._tests.values()), "figures": self._figures}))


def main() -> int:
    """Without the conftest of other tests, which need packages of their own; warnings of any torch are none of ours."""
    tests, target = map(Path, sys.argv[1:])
    options = ["-m", "gpu", "-W", "default", "-p", "no:cacheprovider", f"--confcutdir={tests.parent}"]
    return int(pytest.main([str(tests), *options], plugins=[Recorder(target)]))


if __name__ == "__main__":
    sys.exit(main())
