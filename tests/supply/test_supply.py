"""What is installed is what was locked, by hash; and what an audit says of it."""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.supply import audit

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "trt_layermerge"
LOCKS = ("requirements.lock", "requirements-dev.lock")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: str) -> dict[str, str]:
    return {_normal(name): version for name, version in _PIN.findall((ROOT / path).read_text())}


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_locked_has_hashes_and_names_no_place(lock: str) -> None:
    text = (ROOT / lock).read_text()
    entries = re.split(r"\n(?=[A-Za-z])", text.strip())
    assert len(entries) == len(pins(lock)) > 40
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]
    assert "://" not in text and "index" not in text.lower()


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_have_the_versions_of_the_constraints(lock: str) -> None:
    constrained = pins("constraints.txt")
    differing = {name: version for name, version in pins(lock).items() if constrained.get(name, version) != version}
    assert not differing, "make lock"
    if lock == LOCKS[1]:
        assert not constrained.keys() - pins(lock).keys(), "make lock"


def test_what_users_get_is_part_of_what_is_tested() -> None:
    assert pins(LOCKS[0]).items() <= pins(LOCKS[1]).items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {_normal(re.split(r"[<>=!~\[; ]", one)[0]) for one in project["dependencies"]}
    assert core <= pins(LOCKS[0]).keys(), "make lock"


def test_what_is_imported_comes_with_the_package_or_with_an_extra() -> None:
    """At the top of a file: what is imported in a function may be missing, which is told."""
    imported = {
        name.partition(".")[0]: file
        for file in PACKAGE.rglob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    foreign = {name: file for name, file in imported.items() if name not in {*sys.stdlib_module_names, PACKAGE.name}}
    known = pins(LOCKS[0]).keys() | {"google", "tensorrt", "tensorrt-rtx", "ray", "pytest"}  # protobuf, and extras
    missing = {name: file for name, file in foreign.items() if _normal(name) not in known}
    assert not missing, "name it among the dependencies in pyproject.toml, then make lock"
    assert {"torch", "matplotlib"} <= foreign.keys()


def test_every_file_of_the_package_is_in_the_wheel() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][PACKAGE.name]
    files = [file.relative_to(PACKAGE) for file in PACKAGE.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    left = [file for file in files if file.suffix != ".py" and not any(file.match(one) for one in patterns)]
    assert not left
    assert all(list(PACKAGE.glob(pattern)) for pattern in patterns)


def test_every_dependency_has_its_reason() -> None:
    """Beside it, or above it."""
    lines = (ROOT / "pyproject.toml").read_text().partition("\ndependencies = [")[2].partition("\n]")[0].splitlines()
    named = [(above, line) for above, line in zip(["", *lines], lines, strict=False) if line.strip().startswith('"')]
    bare = [line for above, line in named if "#" not in line and not above.strip().startswith("#")]
    assert len(named) > 10
    assert not bare


def _report(*dependencies: dict[str, object]) -> str:
    return json.dumps({"dependencies": list(dependencies)})


UNKNOWN: dict[str, object] = {"name": "a", "skip_reason": "not found"}
FINE: dict[str, object] = {"name": "b", "version": "1", "vulns": []}
BAD: dict[str, object] = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}


@pytest.mark.parametrize(
    ("report", "said", "code", "words"),
    [
        ("", "ConnectionError: no route", 0, "skipped: .*no route"),
        ("", "", 0, "skipped: .*says nothing"),
        (_report(UNKNOWN), "No known vulnerabilities found", 0, "skipped: .*any of 1 packages"),
        (_report(UNKNOWN, FINE), "", 0, "1 of 2 packages audited, 0 advisories"),
        (_report(FINE, BAD), "", 1, r"1 advisories\nc 2: CVE-1, mended in 3"),
    ],
)
def test_what_was_not_audited_is_not_called_fine(report: str, said: str, code: int, words: str) -> None:
    found, told = audit.verdict(report, said)
    assert found == code and re.search(words, told)


def test_an_accepted_advisory_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(audit.ACCEPTED, "CVE-1", "is of a part that nothing here calls")
    assert audit.verdict(_report(BAD), "")[0] == 0
