"""Whether convolutions on a GPU may round float32 to TF32; torch lets them, from Ampere on, unless told otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Inside, they may or may not; as it was, after.

    torch has two settings, and refuses to read the older one where both differ: so both are set, and where a user has
    made them differ, they do so again after.
    """
    cudnn: Any = torch.backends.cudnn  # whose types do not know the newer settings
    kinds = (cudnn.conv, cudnn.rnn)
    before, older = [kind.fp32_precision for kind in kinds], _older()

    def put(*precisions: str, older: bool) -> None:
        cudnn.allow_tf32 = older  # which changes the others
        for kind, precision in zip(kinds, precisions, strict=True):
            kind.fp32_precision = precision

    put(*("tf32" if allowed else "ieee" for _ in kinds), older=allowed)
    try:
        yield
    finally:
        put(*before, older=older)


def _older() -> bool:
    """The older setting; as it is on a fresh start, where it cannot be read."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return True
