"""``python -m tests.gpu [FILE]``: all that can be tested on this machine's GPU, and one file of evidence of it.

Each part runs in a process of its own, for a crash of one is evidence, too. Needs pytest and what the package needs;
the package itself is read from this checkout.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.gpu.parts import PARTS, Part
from trt_layermerge.anonymous import anonymous_value

ROOT = Path(__file__).parents[2]
EVIDENCE = Path("build") / "gpu-evidence.json"
MOST_SECONDS = 3600
PACKAGES = (
    "torch", "onnx", "onnxruntime", "numpy", "pytest", "cuda-bindings", "nvidia-ml-py", "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13", "pycuda", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx-cu12",
    "tensorrt-rtx-cu13",
)  # fmt: skip


def main() -> int:
    """Run the parts; 1 where a test failed or a part crashed, 0 where none did, whatever was skipped."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / EVIDENCE
    found: dict[str, dict[str, Any]] = {}
    evidence = {
        "format": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _said("git", "rev-parse", "HEAD"),
        "device": _device(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: there for name in PACKAGES if (there := _version(name))},
        "parts": found,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        found[part.name] = _outcome(part)  # written each by each: who stops us keeps what was done
        target.write_text(json.dumps(anonymous_value(evidence), indent=2) + "\n")
        print(f"{part.name:<13} {_line(found[part.name])}", flush=True)
    print(f"evidence: {target}")
    return int(any(one.get("failed") or one.get("crashed") for one in found.values()))


def _outcome(part: Part) -> dict[str, Any]:
    lacking = part.lacking() or (None if find_spec("pytest") else "pytest is not installed")
    if lacking is not None:
        return {"needs": part.needs, "skipped": lacking}
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "tests.json"
        command = [sys.executable, "-m", "tests.gpu.recording", str(part.file), str(told)]
        try:
            code: int | str = subprocess.run(command, cwd=ROOT, timeout=MOST_SECONDS).returncode
        except subprocess.TimeoutExpired:
            code = f"it took longer than {MOST_SECONDS} s"
        recorded = json.loads(told.read_text()) if told.is_file() else {"tests": [], "figures": {}}
    failed = sum(test["outcome"] == "failed" for test in recorded["tests"])
    crashed = None if code in (0, 1) and recorded["tests"] else f"pytest ended with {code}"
    seconds = round(time.monotonic() - begin, 1)
    return {"needs": part.needs, "failed": failed, "crashed": crashed, "seconds": seconds, **recorded}


def _line(outcome: dict[str, Any]) -> str:
    if "skipped" in outcome:
        return f"skipped: {outcome['skipped']}"
    passed = sum(test["outcome"] == "passed" for test in outcome["tests"])
    crashed = f"; {outcome['crashed']}" if outcome["crashed"] else ""
    return f"{passed} passed, {outcome['failed']} failed, {outcome['seconds']:.0f} s{crashed}"


def _device() -> dict[str, str] | None:
    """The first GPU and its driver; ``None`` where there is none."""
    from trt_layermerge.errors import RuntimeNotAvailableError

    try:
        from trt_layermerge.runtimes.nvidia.cuda import driver

        there = driver()
    except (ImportError, RuntimeNotAvailableError):  # each part says which
        return None
    named = {"name": there.device, "compute_capability": there.compute_capability}
    return named | {"driver": there.version, "cuda": there.cuda}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _said(*command: str) -> str | None:
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    sys.exit(main())
