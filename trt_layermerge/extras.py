"""The optional dependencies of this package, and the command that installs one. Standard library only."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def install_hint(extra: str, *packages: str) -> str:
    """What to type to get an extra; no message may name a command that fails.

    There is no release on the package index: extras are installed from a checkout.

    Args:
        extra: Of ``pyproject.toml``.
        packages: What would do on its own, and is on the index.
    """
    checkout = f"pip install '.[{extra}]' in a checkout of trt_layermerge"
    return f"pip install {' '.join(packages)}, or {checkout}" if packages else checkout


def installed_version(package: str) -> str | None:
    """Version of an installed package, without loading it; ``None`` where it is not here."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
