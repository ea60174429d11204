"""The optional dependencies of this package, and the command that installs one. Standard library only."""

from __future__ import annotations


def install_hint(extra: str, *packages: str) -> str:
    """What to type to get an extra; no message may name a command that fails.

    There is no release on the package index: extras are installed from a checkout.

    Args:
        extra: Of ``pyproject.toml``.
        packages: What would do on its own, and is on the index.
    """
    checkout = f"pip install '.[{extra}]' in a checkout of trt_layermerge"
    return f"pip install {' '.join(packages)}, or {checkout}" if packages else checkout
