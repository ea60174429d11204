"""Deliveries that are signed and verified by the command line."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.delivery.test_delivery_signature import write_private, write_public
from trt_layermerge.cli.signing import PASSWORD
from trt_layermerge.testing.runtimes import small_model


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder: ``key.pem``, the same as ``locked.pem`` with a password, ``key.pub.pem``, and ``other.pub.pem``."""
    folder, key = tmp_path / "keys", Ed25519PrivateKey.generate()
    folder.mkdir()
    write_private(folder / "key.pem", key)
    write_private(folder / "locked.pem", key, "geheim")
    write_public(folder / "key.pub.pem", key)
    write_public(folder / "other.pub.pem", Ed25519PrivateKey.generate())
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "d" / "m.onnx"
    path.parent.mkdir()
    onnx.save(small_model(), path)
    return path


def test_build_signs_and_verify_asks_for_it(run: Any, keys: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = model.with_name("m.engine.onnx.manifest.json")
    assert run("build", model, "--sign", keys / "key.pem").code == 0
    verify = ("verify", "--manifest", manifest, "--strict")
    ran = run(*verify, "--signed-by", keys / "key.pub.pem", "--json")
    assert (ran.code, ran.json["signed_by"]) == (0, str(keys / "key.pub.pem"))
    assert f"signed by {keys / 'key.pub.pem'}" in run(*verify, "--signed-by", keys / "key.pub.pem").out
    assert "signed_by" not in run(*verify, "--json").json
    ran = run(*verify, "--signed-by", keys / "other.pub.pem")
    assert ran.code == 5 and "is no signature of" in ran.err and ran.out == ""
    monkeypatch.setenv("TRT_LAYERMERGE_SIGNED_BY", str(keys / "other.pub.pem"))
    assert run(*verify).code == 5, "who asks for a signature once asks for it always"
    assert run("build", model).code == 0, "and what was signed before is not signed now"
    ran = run(*verify, "--signed-by", keys / "key.pub.pem")
    assert ran.code == 5 and "is not signed" in ran.err


def test_what_is_deployed_is_signed_where_that_is_asked_for(run: Any, keys: Path, model: Path) -> None:
    assert run("build", model, "--sign", keys / "key.pem").code == 0
    deploy = (
        "deploy",
        model.with_name("m.engine.onnx.manifest.json"),
        "--to",
        "triton",
        "--output",
        model.parent / "r",
    )
    ran = run(*deploy, "--signed-by", keys / "other.pub.pem")
    assert ran.code == 5 and "is no signature of" in ran.err and not (model.parent / "r").exists()
    assert run(*deploy, "--signed-by", keys / "key.pub.pem").code == 0 and (model.parent / "r").is_dir()


def test_a_job_is_signed(run: Any, desk: Any, keys: Path) -> None:
    (desk.folder / "job.toml").write_text(f'sign = "{keys / "key.pem"}"\n')
    ran = run("compress", *desk.job, "--runtime", "estimate:rtx-2080-ti", "--config", desk.folder / "job.toml")
    assert ran.code == 0, ran.err
    manifest = desk.folder / "out" / "manifest.json"
    assert run("verify", "--manifest", manifest, "--signed-by", keys / "key.pub.pem").code == 0
    manifest.write_bytes(manifest.read_bytes().replace(b'"model"', b'"modeL"'))
    assert run("verify", "--manifest", manifest, "--signed-by", keys / "key.pub.pem").code == 5


def test_a_password_comes_from_the_environment(
    run: Any, keys: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO())
    sign = ("build", model, "--sign", keys / "locked.pem")
    ran = run(*sign)
    assert ran.code == 2 and PASSWORD in ran.err
    monkeypatch.setenv(PASSWORD, "another")
    ran = run(*sign)
    assert ran.code == 3 and "has another password" in ran.err
    monkeypatch.setenv(PASSWORD, "geheim")
    assert run(*sign).code == 0


@pytest.mark.parametrize("name", ["nowhere.pem", ".", "key.pub.pem"])
def test_a_key_that_is_none_is_told_before_anything_begins(run: Any, desk: Any, keys: Path, name: str) -> None:
    ran = run("compress", *desk.job, "--sign", keys / name)
    assert ran.code == 3 and len(ran.err.splitlines()) <= 2 and not (desk.folder / "out").exists()


def test_a_key_that_others_may_read_is_said_and_used(run: Any, keys: Path, model: Path) -> None:
    (keys / "key.pem").chmod(0o644)
    ran = run("build", model, "--sign", keys / "key.pem")
    assert ran.code == 0 and "warning: others than its owner may read" in ran.err
