"""Signatures: who made a delivery. Ed25519 over the bytes of its manifest, 64 bytes in a file beside that.

A manifest has the hash of every file of its delivery, so its signature is one of them all. It is what ``openssl
pkeyutl -sign -rawin`` makes: keys may stay where this program is not, and whoever does not trust it checks without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trt_layermerge.errors import InputError, RuntimeNotAvailableError, VerificationError, say
from trt_layermerge.extras import install_hint
from trt_layermerge.files import read_bytes, write_bytes

if TYPE_CHECKING:  # an extra, loaded by who has a key
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_LARGEST_KEY = 1 << 14
_SIGNATURE_BYTES = 64
_MAKING = "openssl genpkey -algorithm ed25519 -out key.pem, and openssl pkey -in key.pem -pubout -out key.pub.pem"


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with.

    Attributes:
        path: Where it was read from, for messages.
    """

    path: Path
    _key: Ed25519PublicKey = field(repr=False)

    def require_signature(self, manifest: Path, data: bytes) -> None:
        """See that a manifest was signed with the private part of this key.

        Args:
            manifest: Where it lies; its signature lies beside it.
            data: Its bytes, those that will be used.

        Raises:
            VerificationError: It was not, or it has changed since.
            OSError: The signature is there and cannot be read.
        """
        from cryptography.exceptions import InvalidSignature

        path = signature_path(manifest)
        try:
            signature = read_bytes(path, _SIGNATURE_BYTES)
            self._key.verify(signature, data)
        except FileNotFoundError as error:
            raise VerificationError(
                f"{manifest} is not signed: there is no {path}",
                hint="get it from whoever delivers, or verify without --signed-by what you built yourself",
            ) from error
        except (InvalidSignature, ValueError) as error:
            raise VerificationError(
                f"{path} is no signature of {manifest} by {self.path}",
                hint="one of the three is another than it should be: do not load the engine; get them again, each "
                "from where you trust it",
            ) from error


@dataclass(frozen=True)
class SigningKey:
    """A private key of the user's."""

    path: Path
    _key: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """What others check its signatures with."""
        return PublicKey(self.path, self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        """The signature of bytes, 64 of them."""
        return self._key.sign(data)


def signature_path(manifest: Path) -> Path:
    """Where the signature of a manifest lies."""
    return manifest.with_name(f"{manifest.name}.sig")


def write_signed(path: Path, data: bytes, key: SigningKey | None) -> None:
    """Write a manifest, and its signature where there is a key; after a kill the two fit, or there is no signature."""
    signature_path(path).unlink(missing_ok=True)  # of an earlier manifest
    write_bytes(path, data)
    if key is not None:
        write_bytes(signature_path(path), key.sign(data))


def read_signing_key(path: Path, password: Callable[[], str]) -> SigningKey:
    """Read a private key: PEM, as openssl writes it.

    Args:
        path: The file. That others may read it is said.
        password: Asked for where the key is protected by one.

    Raises:
        InputError: It is no Ed25519 key, or the password is another one.
        RuntimeNotAvailableError: The extra ``sign`` is not installed.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _key_bytes(path)
    told = password().encode() if b"ENCRYPTED" in data else None  # the word of both kinds of PEM that are
    try:
        key = load_pem_private_key(data, told)
    except Exception as error:  # ValueError, TypeError, UnsupportedAlgorithm: the library's page names more
        wrong = ", or has another password" if told is not None else ""
        raise _no_key(path, f"it cannot be read as a private key in PEM{wrong}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path, "it is of another kind than Ed25519")
    if path.stat().st_mode & 0o077:
        say(f"others than its owner may read or write the private key {path}: chmod 600 {path}")
    return SigningKey(path, key)


def read_public_key(path: Path) -> PublicKey:
    """Read a public key: PEM, as openssl writes it.

    Raises:
        InputError: It is no Ed25519 key.
        RuntimeNotAvailableError: The extra ``sign`` is not installed.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _key_bytes(path)
    try:
        key = load_pem_public_key(data)
    except Exception as error:  # as above
        private = ", and is a private one, which whoever verifies must not have" if b"PRIVATE" in data else ""
        raise _no_key(path, f"it cannot be read as a public key in PEM{private}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key(path, "it is of another kind than Ed25519")
    return PublicKey(path, key)


def _key_bytes(path: Path) -> bytes:
    try:
        return read_bytes(path, _LARGEST_KEY)
    except OSError as error:
        raise InputError(f"cannot read the key {path}: {error.strerror}") from error
    except ValueError as error:
        raise _no_key(path, f"it {error}") from error


def _no_key(path: Path, why: str) -> InputError:
    return InputError(f"{path} is no key to use: {why}", hint=f"make a pair: {_MAKING}")


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401  # whether it is there
    except ImportError as error:
        raise RuntimeNotAvailableError(
            "signatures are made and checked with cryptography, which is not installed",
            hint=install_hint("sign", "cryptography"),
        ) from error
