"""Images of a folder, whatever lies how deep in it, read with Pillow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trt_layermerge.errors import RuntimeNotAvailableError, TaskError
from trt_layermerge.extras import install_hint
from trt_layermerge.training.unlabelled.prepared_image import prepared
from trt_layermerge.training.unlabelled.preprocessing import Preprocessing
from trt_layermerge.training.unlabelled.samples import content_digest

ENDINGS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

_WIDE = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of more than eight bits, which it would cut off."""


@dataclass(frozen=True)
class ImageFiles:
    """The image files below a folder, in the order of their names.

    Attributes:
        folder: Where they lie.
        preprocessing: What is made of them.
        files: Themselves.
    """

    folder: Path
    preprocessing: Preprocessing
    files: tuple[Path, ...]

    @classmethod
    def below(cls, folder: Path, preprocessing: Preprocessing) -> ImageFiles:
        """All of a folder, looked at so far that they can be batched.

        Raises:
            TaskError: There are none, one is no image, or they are of different sizes.
            RuntimeNotAvailableError: Pillow is not installed.
        """
        files = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()))
        if not files:
            raise TaskError(
                f"there is no image in {folder}", hint=f"looked for were files that end in {', '.join(ENDINGS)}"
            )
        found = cls(folder, preprocessing, files)
        found._require_one_size()
        return found

    @cached_property
    def digests(self) -> Sequence[bytes]:
        return [content_digest(file.read_bytes()) for file in self.files]

    @property
    def in_words(self) -> str:
        return f"{len(self.files)} images below {self.folder}: {self.preprocessing.in_words}"

    def read(self, index: int) -> tuple[Tensor, ...]:
        pillow, file = _pillow(), self.files[index]
        with _naming(file), pillow.open(file) as image:
            if image.mode in _WIDE:
                raise ValueError(f"has more than eight bits a value (mode {image.mode})")
            pixels = np.array(_upright(image).convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
            return (prepared(torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)), self.preprocessing),)

    def _require_one_size(self) -> None:
        pillow = _pillow()
        first: tuple[Path, tuple[int, int]] | None = None
        for file in self.files:
            with _naming(file), pillow.open(file) as image:
                width, height = image.size if _orientation(image) not in _LYING else image.size[::-1]
                size = self.preprocessing.size_of(height, width)
            first = first or (file, size)
            if size != first[1]:
                raise TaskError(
                    f"images are of different sizes: {first[0]} is {_by(first[1])}, {file} is {_by(size)}",
                    hint="bring them to one: --resize HxW; or --resize SHORTER --crop HxW, the middle of each",
                )


_LYING = (5, 6, 7, 8)
"""Orientations of EXIF at which rows of the file are columns of the picture."""


def _orientation(image: Any) -> int:
    return int(image.getexif().get(0x0112, 1))


def _upright(image: Any) -> Any:
    """As a camera says that it was held, and as viewers and OpenCV show it."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if _orientation(image) != 1 else image


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Whatever is wrong with a file, said with its name."""
    try:
        yield
    except ValueError as error:
        raise TaskError(f"the image {file} {error}", hint="mend it, or take it out of the folder") from error
    except Exception as error:  # Pillow raises of many kinds
        if isinstance(error, TaskError):
            raise
        said = " ".join(str(error).split())
        raise TaskError(f"the image {file} cannot be read: {said}", hint="mend it, or take it out") from error


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise RuntimeNotAvailableError(
            "image files are read with Pillow, which is not installed", hint=install_hint("images", "pillow")
        ) from error
    return Image
