"""Samples in arrays: of a file of numpy's, or as a function in a user's file yields them.

1. Bytes, ``[height, width]`` or ``[height, width, 1 or 3]``, are images, and prepared as those of files are; so are
   ``[1 or 3, height, width]``, if that cannot be read as the former.
2. Real and whole numbers are what the network takes already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trt_layermerge.errors import TaskError, said, say
from trt_layermerge.files import require_no_pipe
from trt_layermerge.training.unlabelled.prepared_image import prepared
from trt_layermerge.training.unlabelled.preprocessing import Preprocessing
from trt_layermerge.training.unlabelled.samples import content_digest
from trt_layermerge.training.userfile import with_function

ARRAY = ".npy"

FUNCTION = "images"
"""Name of the function that is called where none is given."""

MOST_GENERATED = 4096
"""Samples of a function that are taken; they are kept in memory."""

_Sample = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Arrays:
    """Samples of arrays, one for each input of the network.

    Attributes:
        source: Where they come from, in words.
        preprocessing: What is made of images of bytes.
        samples: Themselves.
    """

    source: str
    preprocessing: Preprocessing
    samples: Sequence[_Sample]

    @classmethod
    def of_file(cls, path: Path, preprocessing: Preprocessing) -> Arrays:
        """One array ``[samples, ...]``, read as it is needed.

        Raises:
            TaskError: It cannot be read, or is nothing of the kind.
        """
        try:
            require_no_pipe(path)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # numpy takes the header for Python, and raises of many kinds
            raise TaskError(f"cannot read the array {path}: {said(error)}", hint="write it with numpy.save") from error
        if not isinstance(array, np.ndarray) or array.ndim < 2:
            raise TaskError(f"{path} is no array of samples", hint="its first dimension is the sample, [samples, ...]")
        return cls(str(path), preprocessing, [(one,) for one in array])._checked()

    @classmethod
    def of_function(cls, file: Path, function: str, preprocessing: Preprocessing) -> Arrays:
        """What a function of a Python file yields: arrays, or tuples of them for several inputs.

        Raises:
            TaskError: There is no such function, it raises, or yields something else.
        """

        def samples(function: Callable[..., Any]) -> list[_Sample]:
            found: Iterable[Any] = function()
            return [_as_sample(one, number) for number, one in enumerate(islice(found, MOST_GENERATED + 1))]

        made = with_function(file, function, "yields arrays", samples)
        if len(made) > MOST_GENERATED:
            say(f"{file}: the first {MOST_GENERATED} samples that {function}() yields are taken")
        return cls(f"{file}:{function}", preprocessing, made[:MOST_GENERATED])._checked()

    @cached_property
    def digests(self) -> Sequence[bytes]:
        return [content_digest(*(_bytes(part) for part in sample)) for sample in self.samples]

    @property
    def in_words(self) -> str:
        prepared = self.preprocessing.in_words if self._of_bytes else "prepared already"
        return f"{len(self.samples)} samples of {self.source}: {prepared}"

    def read(self, index: int) -> tuple[Tensor, ...]:
        return tuple(self._read(part, index) for part in self.samples[index])

    @property
    def _of_bytes(self) -> bool:
        return any(part.dtype == np.uint8 for part in self.samples[0])

    def _read(self, array: NDArray[Any], index: int) -> Tensor:
        if array.dtype == np.uint8:
            try:
                return prepared(_image(array), self.preprocessing)
            except ValueError as error:
                raise TaskError(f"sample {index} of {self.source} {error}") from error
        wanted = np.float32 if array.dtype.kind == "f" else np.int64
        return torch.from_numpy(np.array(array, wanted))

    def _checked(self) -> Arrays:
        """The same, every sample looked at.

        Raises:
            TaskError: There is none; one is of other types or shapes than the first, is not finite, or no number.
        """
        if not self.samples:
            raise TaskError(f"there is no sample in {self.source}")
        kinds = [(part.dtype, part.shape) for part in self.samples[0]]
        for index, sample in enumerate(self.samples):
            if [(part.dtype, part.shape) for part in sample] != kinds:
                found, first = (
                    ", ".join(f"{part.dtype}{list(part.shape)}" for part in one) for one in (sample, self.samples[0])
                )
                raise TaskError(f"sample {index} of {self.source} is {found}, the first one is {first}")
            for part in sample:
                if part.dtype != np.uint8 and part.dtype.kind not in "fi":
                    raise TaskError(
                        f"{self.source} holds {part.dtype}",
                        hint="uint8 for images, float32 for what is prepared already, int64 for whole numbers",
                    )
                if part.dtype.kind == "f" and not np.isfinite(part).all():
                    raise TaskError(f"sample {index} of {self.source} has inf or NaN in it")
        if not self._of_bytes and self.preprocessing != Preprocessing():
            raise TaskError(
                f"{self.source} is no image of bytes but {kinds[0][0]}, and taken as it is",
                hint="leave --resize, --mean and their like out, or hand in uint8",
            )
        return self


def _as_sample(given: Any, number: int) -> _Sample:
    parts = given if isinstance(given, (tuple, list)) else (given,)
    arrays = tuple(np.array(part) for part in parts)  # copies: a function may fill one buffer again and again
    if not arrays or any(array.dtype == object for array in arrays):
        raise TaskError(f"sample {number} is a {type(given).__name__} and no array", hint="yield numpy arrays")
    return arrays


def _bytes(array: NDArray[Any]) -> bytes:
    return f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()


def _image(array: NDArray[Any]) -> Tensor:
    """Bytes as ``[height, width, channels]``, rule 1."""
    image = torch.from_numpy(np.array(array))
    if image.ndim == 2:
        return image[:, :, None]
    if image.ndim == 3 and image.shape[2] not in (1, 3) and image.shape[0] in (1, 3):
        return image.permute(1, 2, 0)
    return image
