"""The options ``--sign`` and ``--signed-by``, and the password of the key that the first names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from trt_layermerge.cli.sections import OUTPUT, option, section
from trt_layermerge.delivery.delivery_signature import PublicKey, SigningKey, read_public_key, read_signing_key
from trt_layermerge.errors import UsageError

PASSWORD = "TRT_LAYERMERGE_KEY_PASSWORD"


def _read(_ctx: click.Context, _param: click.Parameter, path: Path | None) -> SigningKey | None:
    return None if path is None else read_signing_key(path, lambda: _password(path))


def _read_public(_ctx: click.Context, _param: click.Parameter, path: Path | None) -> PublicKey | None:
    return None if path is None else read_public_key(path)


def _password(path: Path) -> str:
    """The password of a private key: from the environment, or from who sits there.

    Raises:
        UsageError: Nobody does.
    """
    if (told := os.environ.get(PASSWORD)) is not None:
        return told
    if not sys.stdin.isatty():
        raise UsageError(f"the private key {path} has a password", hint=f"say it in the environment, as {PASSWORD}")
    asked: str = click.prompt(f"password of {path}", hide_input=True, err=True)
    return asked


sign_option = section(
    OUTPUT,
    option(
        "--sign",
        type=click.Path(path_type=Path),
        callback=_read,
        metavar="KEY.pem",
        help="Sign the manifest with this private key (Ed25519); its password, if any, is asked for, or is in "
        f"{PASSWORD}.",
    ),
)
signed_by_option = click.option(
    "--signed-by",
    type=click.Path(path_type=Path),
    callback=_read_public,
    envvar="TRT_LAYERMERGE_SIGNED_BY",
    show_envvar=True,
    metavar="KEY.pem",
    help="Load the engine only if this public key (Ed25519) signed its manifest.",
)
