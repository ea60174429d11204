from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from cryptography.hazmat.primitives import serialization as to
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trt_layermerge.delivery import verified_engine
from trt_layermerge.delivery.delivery_signature import (
    PublicKey,
    SigningKey,
    read_public_key,
    read_signing_key,
    signature_path,
    write_signed,
)
from trt_layermerge.delivery.engine_manifest import manifest_path
from trt_layermerge.delivery.engines import build_engine, verify_built
from trt_layermerge.delivery.verification import verify_delivery
from trt_layermerge.errors import Caution, InputError, RuntimeNotAvailableError, VerificationError
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import small_model


def write_private(path: Path, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, password: str = "") -> Path:
    lock = to.BestAvailableEncryption(password.encode()) if password else to.NoEncryption()
    path.write_bytes(key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, lock))
    path.chmod(0o600)
    return path


def write_public(path: Path, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> Path:
    path.write_bytes(key.public_key().public_bytes(to.Encoding.PEM, to.PublicFormat.SubjectPublicKeyInfo))
    return path


def never() -> str:
    raise AssertionError("a password is asked for")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[SigningKey, PublicKey]:
    key = ed25519.Ed25519PrivateKey.generate()
    private, public = write_private(tmp_path / "key.pem", key), write_public(tmp_path / "key.pub.pem", key)
    return read_signing_key(private, never), read_public_key(public)


@pytest.fixture
def stranger(tmp_path: Path) -> SigningKey:
    return read_signing_key(write_private(tmp_path / "stranger.pem", ed25519.Ed25519PrivateKey.generate()), never)


@pytest.fixture
def built(pair: tuple[SigningKey, PublicKey], tmp_path: Path) -> Path:
    """The signed manifest of an engine, alone in a folder with what it lists."""
    (tmp_path / "d").mkdir()
    onnx.save(small_model(), tmp_path / "d" / "m.onnx")
    output = tmp_path / "d" / "m.engine.onnx"
    build_engine(tmp_path / "d" / "m.onnx", get_runtime("onnxruntime"), BuildOptions(), {}, output, pair[0])
    return manifest_path(output)


@pytest.fixture
def no_engine_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("an engine is about to be loaded")

    monkeypatch.setattr(verified_engine, "fitting_runtime", load)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(data=st.binary(max_size=200), change=st.data())
def test_the_signature_is_of_these_bytes_by_this_key(pair, stranger, tmp_path, data: bytes, change) -> None:
    private, public = pair
    path = tmp_path / "m.json"
    write_signed(path, data, private)
    public.require_signature(path, path.read_bytes())
    private.public.require_signature(path, data)
    with pytest.raises(VerificationError, match="is no signature of"):
        stranger.public.require_signature(path, data)
    with pytest.raises(VerificationError, match="is no signature of"):
        public.require_signature(path, data + b"\n")
    signature = bytearray(signature_path(path).read_bytes())
    signature[change.draw(st.integers(0, 63))] ^= change.draw(st.integers(1, 255))
    signature_path(path).write_bytes(signature)
    with pytest.raises(VerificationError, match="is no signature of"):
        public.require_signature(path, data)


@pytest.mark.parametrize("signature", [b"", b"x" * 63, b"x" * 65, b"\0" * 64, b"x" * 10**6])
def test_what_is_no_signature_is_none(pair, tmp_path: Path, signature: bytes) -> None:
    signature_path(tmp_path / "m").write_bytes(signature)
    with pytest.raises(VerificationError, match="is no signature of"):
        pair[1].require_signature(tmp_path / "m", b"")


def test_a_signed_engine_is_verified(built: Path, pair) -> None:
    assert verify_built(built, strict=True, signed_by=pair[1]).files == 2
    assert verify_built(built, strict=True).files == 2, "who has no key checks what there is to check without"


@pytest.mark.parametrize(
    "change",
    [
        lambda path, _: signature_path(path).unlink(),
        lambda path, _: signature_path(path).write_bytes(b""),
        lambda path, _: path.write_bytes(path.read_bytes().replace(b'"git"', b'"giT"')),
        lambda path, key: write_signed(path, path.read_bytes(), key),
        lambda path, _: write_signed(path, path.read_bytes(), None),
    ],
    ids=["no signature", "an empty one", "another byte", "by somebody else", "unsigned again"],
)
def test_no_engine_is_loaded_that_the_key_did_not_sign(
    built: Path, pair, stranger, no_engine_is_loaded: None, change: Callable[[Path, SigningKey], object]
) -> None:
    change(built, stranger)
    with pytest.raises(VerificationError, match=r"is not signed|is no signature of"):
        verify_built(built, signed_by=pair[1])


def test_a_changed_engine_is_not_loaded_either(built: Path, pair, no_engine_is_loaded: None) -> None:
    engine = built.with_name("m.engine.onnx")
    engine.write_bytes(engine.read_bytes() + b"\0")
    with pytest.raises(VerificationError, match="SHA-256"):
        verify_built(built, signed_by=pair[1])


def test_with_a_key_strict_holds_for_engines_beside(built: Path, pair) -> None:
    other = Path(shutil.copy(built.with_name("m.onnx"), built.with_name("other.onnx")))
    engine = built.with_name("other.engine.onnx")
    build_engine(other, get_runtime("onnxruntime"), BuildOptions(), {}, engine)
    verify_built(built, strict=True)
    with pytest.raises(VerificationError, match=r"other\.engine\.onnx\.manifest\.json is not signed"):
        verify_built(built, strict=True, signed_by=pair[1])


def test_a_delivery_is_verified_by_its_signature(delivered: Path, pair, stranger) -> None:
    path = delivered / "manifest.json"
    with pytest.raises(VerificationError, match="is not signed"):
        verify_delivery(path, signed_by=pair[1])
    write_signed(path, path.read_bytes(), pair[0])
    assert verify_delivery(path, signed_by=pair[1]).files == 3
    with pytest.raises(VerificationError, match="is no signature of"):
        verify_delivery(path, signed_by=stranger.public)


def test_openssl_makes_and_checks_the_same_signature(built: Path, pair, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here")
    signature, keys = signature_path(built), {name: tmp_path / name for name in ("key.pem", "key.pub.pem")}
    checking = ["pkeyutl", "-verify", "-pubin", "-inkey", keys["key.pub.pem"], "-rawin", "-in", built]
    checked = subprocess.run([openssl, *checking, "-sigfile", signature], capture_output=True, check=False)
    if checked.returncode and b"Unknown option" in checked.stderr + checked.stdout:
        pytest.skip("this openssl knows no Ed25519")
    assert checked.returncode == 0, checked.stderr
    signature.unlink()
    signing = ["pkeyutl", "-sign", "-inkey", keys["key.pem"], "-rawin", "-in", built, "-out", signature]
    subprocess.run([openssl, *signing], check=True)
    verify_built(built, signed_by=pair[1])


def test_a_password_is_asked_for_where_there_is_one(tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    path = write_private(tmp_path / "key.pem", key, "geheim")
    assert read_signing_key(path, lambda: "geheim").sign(b"x") == key.sign(b"x")
    for wrong in ("", "Geheim", "x" * 1000, "\0"):
        with pytest.raises(InputError, match="or has another password"):
            read_signing_key(path, lambda wrong=wrong: wrong)


def test_a_key_that_others_may_read_is_told(tmp_path: Path) -> None:
    path = write_private(tmp_path / "key.pem", ed25519.Ed25519PrivateKey.generate())
    for mode in (0o644, 0o640, 0o602):
        path.chmod(mode)
        with pytest.warns(Caution, match=f"chmod 600 {path}"):
            read_signing_key(path, never)


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\0" * 20_000]
)
def test_what_is_no_key_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    for read in (lambda: read_signing_key(path, never), lambda: read_public_key(path)):
        with pytest.raises(InputError, match="is no key to use") as caught:
            read()
        assert caught.value.hint is not None and "openssl genpkey" in caught.value.hint


def test_keys_of_other_kinds_and_in_each_others_place_are_refused(tmp_path: Path) -> None:
    curve, right = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(InputError, match="another kind than Ed25519"):
        read_signing_key(write_private(tmp_path / "ec.pem", curve), never)
    with pytest.raises(InputError, match="another kind than Ed25519"):
        read_public_key(write_public(tmp_path / "ec.pub.pem", curve))
    with pytest.raises(InputError, match="is a private one"):
        read_public_key(write_private(tmp_path / "key.pem", right))
    with pytest.raises(InputError, match="private key in PEM"):
        read_signing_key(write_public(tmp_path / "key.pub.pem", right), never)


def test_a_key_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pem", tmp_path):
        with pytest.raises(InputError, match="cannot read the key"):
            read_public_key(path)


def test_no_key_is_shown(pair) -> None:
    assert "ed25519" not in repr(pair).lower().replace("signingkey", "")


def test_what_to_install_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for read in (lambda: read_signing_key(tmp_path, never), lambda: read_public_key(tmp_path)):
        with pytest.raises(RuntimeNotAvailableError, match="cryptography") as caught:
            read()
        assert caught.value.hint is not None and "[sign]" in caught.value.hint


def test_a_kill_leaves_no_signature_of_another_manifest(pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.json"
    write_signed(path, b"old", pair[0])

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_signed(path, b"new", pair[0])
    assert path.read_bytes() == b"old" and not signature_path(path).exists()
