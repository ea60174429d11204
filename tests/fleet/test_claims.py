"""Folders that belong to one process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from trt_layermerge.fleet import claims
from trt_layermerge.fleet.claims import PREFIX, ClaimedError, claim, claim_new, remove_left

HOLD = (
    "from trt_layermerge.fleet.claims import claim; import sys; claim('cpu'); print('in', flush=True); sys.stdin.read()"
)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(claims, "_root", lambda: tmp_path)
    return tmp_path


def test_a_folder_is_one_process_s_and_then_gone(root: Path) -> None:
    with pytest.raises(ClaimedError, match="another process"):
        mine = claim("cpu")
        (mine.path / "deep").mkdir()
        claim("cpu")
    remove_left()
    assert (mine.path / "deep").exists(), "its process lives"
    mine.release()
    assert not list(root.iterdir())
    claim("cpu").release()


def test_new_folders_are_different(root: Path) -> None:
    first, second = claim_new(), claim_new()
    assert first.path != second.path
    first.release()
    assert [path for path in root.iterdir()] == [second.path]
    second.release()


def test_what_a_killed_process_left_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the other process knows nothing of our root
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="f") as short:
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.setattr(tempfile, "tempdir", short)
        with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None and other.stdout.readline() == b"in\n"
            with pytest.raises(ClaimedError, match=str(other.pid)):
                claim("cpu")
            remove_left()
            assert [path.name for path in Path(short).iterdir()] == [f"{PREFIX}cpu"]
            other.kill()
        Path(short, "somebody's").mkdir()
        remove_left()
        assert [path.name for path in Path(short).iterdir()] == ["somebody's"]


def test_sockets_of_ray_have_a_path_wherever_temporary_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", "/" + "long" * 20)
    assert claims._root() == Path("/tmp")
