"""Samples without labels, wherever they come from: what each is, by its content, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Protocol

from torch import Tensor

from trt_layermerge.training.unlabelled.preprocessing import Preprocessing


class SampleSet(Protocol):
    """Samples that can be read in any order, in any thread."""

    @property
    def digests(self) -> Sequence[bytes]:
        """Hash of the content of each, whatever it is called."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """What is made of images of bytes."""
        ...

    @property
    def in_words(self) -> str:
        """What is read, and how it is prepared."""
        ...

    def read(self, index: int) -> tuple[Tensor, ...]:
        """One sample, as the network takes it: a tensor for each of its inputs, without the batch.

        Raises:
            TaskError: It cannot be read.
        """
        ...


def content_digest(*content: Any) -> bytes:
    """Hash of bytes, arrays among them."""
    state = blake2b(digest_size=16)
    for part in content:
        state.update(part)
    return state.digest()
