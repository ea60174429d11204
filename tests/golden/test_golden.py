"""One file of each version of each format, as a release wrote it, is read for ever and written back as it was.

The rule for a new version is in CONTRIBUTING.md. Profiles and manifests have theirs in tests/latency/assets and
tests/delivery/assets.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import pytest

from tests.crash.killing import content
from trt_layermerge.delivery.engine_manifest import EngineManifest, read_engine_manifest, write_engine_manifest
from trt_layermerge.delivery.manifest import Manifest
from trt_layermerge.errors import ExitCode, IncompatibleError
from trt_layermerge.estimation.device_files import read_card, write_card
from trt_layermerge.importance import table
from trt_layermerge.importance.table import ImportanceTable, TableKey
from trt_layermerge.journal import Journal
from trt_layermerge.latency import profile
from trt_layermerge.latency.profile import Profile, timing_fields
from trt_layermerge.pipeline.correction_file import read_correction
from trt_layermerge.pipeline.keyed_file import write_keyed
from trt_layermerge.pipeline.measured_plans import REFINEMENT, MeasuredPlans, read_plan_row
from trt_layermerge.pipeline.measuring import _read_baseline
from trt_layermerge.planning.plan import PlanDocument, read_plan, write_plan
from trt_layermerge.training import checkpoint
from trt_layermerge.training.checkpoint import Checkpoint

HERE = Path(__file__).parent
PROFILES, MANIFESTS = HERE.parent / "latency" / "assets", HERE.parent / "delivery" / "assets"


def _importances(golden: Path, new: Path) -> None:
    copy = ImportanceTable.open(new, TableKey(**Journal.read(golden, table._FORMAT).key))
    for row in ImportanceTable.read(golden):
        copy.add(row)


def _profile(golden: Path, new: Path) -> None:
    there = Profile.read(golden)
    copy = Profile.open(new, there.key)
    for row in there:
        copy.add(row)


def _refinement(golden: Path, new: Path) -> None:
    journal = Journal.read(golden, REFINEMENT)
    copy = MeasuredPlans(Journal.open(new, REFINEMENT, journal.key))
    for _, record in journal:
        copy.add(read_plan_row(record))


def _baseline(golden: Path, new: Path) -> None:
    fields = json.loads(golden.read_bytes())
    key = {name: fields[name] for name in ("weights", "device", "batch", "inputs")}
    found = _read_baseline(golden, key)
    assert found is not None and _read_baseline(golden, key | {"batch": 1}) is None
    assert timing_fields(found.timing).items() <= fields.items()
    new.write_bytes(golden.read_bytes())


def _correction(golden: Path, new: Path) -> None:
    fields = json.loads(golden.read_bytes())
    key = {name: fields[name] for name in ("operations", "device", "batch", "inputs")}
    found = read_correction(golden, key)
    assert found is not None and read_correction(golden, key | {"batch": 1}) is None
    write_keyed(new, "correction", key, asdict(found))


WRITTEN_BACK: dict[str, Callable[[Path, Path], object]] = {
    "importance-v5.jsonl": _importances,
    "refinement-v2.jsonl": _refinement,
    "baseline-v1.json": _baseline,
    "correction-v1.json": _correction,
    "plan-v1.json": lambda golden, new: write_plan(new, read_plan(golden)),
    "engine-v1.json": lambda golden, new: write_engine_manifest(new, read_engine_manifest(golden)),
    "checkpoint-v2.safetensors": lambda golden, new: Checkpoint.read(golden).write(new),
    "device.toml": lambda golden, new: write_card(new, read_card(str(golden))),
}


@pytest.mark.parametrize("name", WRITTEN_BACK)
def test_what_a_release_wrote_is_read_and_written_as_it_was(name: str, tmp_path: Path) -> None:
    WRITTEN_BACK[name](HERE / name, tmp_path / name)
    assert content(tmp_path / name) == content(HERE / name)


REFUSED: dict[str, Callable[[Path], object]] = {
    "importance-v3.jsonl": ImportanceTable.read,
    "importance-v4.jsonl": ImportanceTable.read,
    "refinement-v1.jsonl": lambda path: Journal.read(path, REFINEMENT),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_older_versions_say_otherwise_is_refused_in_words(name: str) -> None:
    with pytest.raises(IncompatibleError, match=rf"{name} is of version \d of its format") as caught:
        REFUSED[name](HERE / name)
    assert caught.value.exit_code is ExitCode.INCOMPATIBLE and "measure again" in str(caught.value.hint)


def test_a_profile_is_written_as_it_was(tmp_path: Path) -> None:
    _profile(PROFILES / "profile-v1.jsonl", tmp_path / "p.jsonl")
    assert (tmp_path / "p.jsonl").read_bytes() == (PROFILES / "profile-v1.jsonl").read_bytes()


def test_every_version_that_is_written_has_its_file() -> None:
    """Raise a version, and this fails until a file of the new one lies beside that of the old one."""
    versions = {
        PROFILES / "profile-v{}.jsonl": profile._FORMAT.version,
        HERE / "importance-v{}.jsonl": table._FORMAT.version,
        HERE / "refinement-v{}.jsonl": REFINEMENT.version,
        HERE / "checkpoint-v{}.safetensors": checkpoint.VERSION,
        HERE / "plan-v{}.json": get_args(PlanDocument.model_fields["version"].annotation)[-1],
        HERE / "engine-v{}.json": get_args(EngineManifest.model_fields["version"].annotation)[-1],
        MANIFESTS / "manifest-v{}.json": get_args(Manifest.model_fields["version"].annotation)[-1],
    }
    assert [str(path).format(version) for path, version in versions.items() if not _there(path, version)] == []


def _there(path: Path, version: object) -> bool:
    return Path(str(path).format(version)).is_file()
