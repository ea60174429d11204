"""Known vulnerabilities of what a lock file names, by pip-audit, as far as its advisory service can be asked from here.

Usage: ``python -m tests.supply.audit PIP_AUDIT LOCK``
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

ACCEPTED: dict[str, str] = {}
"""Advisories that are known and do not hold here, by what they are called: why."""

_SECONDS = 300


def verdict(report: str, said: str) -> tuple[int, str]:
    """The exit code, and what to print.

    Args:
        report: What pip-audit prints as JSON.
        said: What else it says.
    """
    try:
        dependencies: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        why = " ".join(said.split())[-200:] or "pip-audit says nothing"
        return 0, f"audit skipped: the advisory service cannot be asked from here: {why}"
    known = [one for one in dependencies if "skip_reason" not in one]
    if not known:
        return 0, f"audit skipped: the index here tells no advisories for any of {len(dependencies)} packages"
    found = [(one, advisory) for one in known for advisory in one["vulns"] if advisory["id"] not in ACCEPTED]
    lines = [f"{len(known)} of {len(dependencies)} packages audited, {len(found)} advisories"]
    for one, advisory in found:
        fixed = ", ".join(advisory["fix_versions"]) or "no version"
        lines.append(f"{one['name']} {one['version']}: {advisory['id']}, mended in {fixed}")
    return int(bool(found)), "\n".join(lines)


def _main() -> int:
    tool, lock = sys.argv[1:]
    command = [tool, "--requirement", lock, "--disable-pip", "--require-hashes", "--format", "json"]
    try:
        ran = subprocess.run(
            [*command, "--progress-spinner", "off", "--timeout", "15"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        code, told = verdict(ran.stdout, ran.stderr)
    except subprocess.TimeoutExpired:
        code, told = verdict("", f"no answer within {_SECONDS} s")
    print(told)
    return code


if __name__ == "__main__":
    sys.exit(_main())
