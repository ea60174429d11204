"""How an image of bytes becomes what a network takes: size, colours, scale, layout. Nothing is random.

In this order: the shorter side is resized, or both; the middle is cropped; colours are brought into order; values are
divided by ``scale``, and normalised. Torch-free, so that the command line can know the steps; ``prepared_image`` does
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from trt_layermerge.errors import UsageError

Layout = Literal["chw", "hwc"]
Colours = Literal["rgb", "bgr", "grey"]


@dataclass(frozen=True)
class Preprocessing:
    """The steps, each of them optional.

    Attributes:
        resize: Of the shorter side, one number; or height and width.
        crop: Height and width of the middle that is taken.
        scale: What values of 0..255 are divided by.
        mean: Subtracted then, of each channel or of all alike.
        std: Divided by then, likewise.
        layout: Of what the network takes.
        channels: Their order, or ``grey`` for one.

    Raises:
        UsageError: A number is out of its range.
    """

    resize: tuple[int, ...] | None = None
    crop: tuple[int, ...] | None = None
    scale: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Layout = "chw"
    channels: Colours = "rgb"

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        count = 1 if self.channels == "grey" else 3
        for name, sizes in (("resize", self.resize), ("crop", self.crop)):
            if sizes is not None and not (len(sizes) in (1, 2) and min(sizes) > 0):
                raise UsageError(f"--{name} is {sizes}; it must be one size, as in 224, or height and width, 48x320")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, count) or not all(map(isfinite, values)):
                raise UsageError(
                    f"--{name} has {len(values)} numbers; it must have one, or one for each channel: {count}"
                )
        if not (isfinite(self.scale) and self.scale > 0) or min(self.std) <= 0:
            raise UsageError("--scale and --std must be above 0")
        for name, value, words in (("layout", self.layout, Layout), ("channels", self.channels, Colours)):
            if value not in get_args(words):
                raise UsageError(f"--{name} is {value!r}; it must be one of {', '.join(get_args(words))}")

    @property
    def in_words(self) -> str:
        """All steps, but those that do nothing."""
        steps = []
        if self.resize is not None:
            steps.append(f"{'shorter side' if len(self.resize) == 1 else 'resized'} to {_by(self.resize)}")
        if self.crop is not None:
            steps.append(f"middle {_by(_both(self.crop))}")
        steps += [self.channels.upper() if self.channels != "grey" else "grey", f"over {self.scale:g}"]
        if (self.mean, self.std) != ((0.0,), (1.0,)):
            steps.append(f"less {_list(self.mean)} over {_list(self.std)}")
        return ", ".join([*steps, self.layout.upper()])

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what an image becomes.

        Raises:
            ValueError: It is smaller than what is to be cropped from it.
        """
        height, width = self.resized(height, width)
        if self.crop is None:
            return height, width
        rows, columns = _both(self.crop)
        if height < rows or width < columns:
            raise ValueError(f"is {height}x{width} there, and {rows}x{columns} are to be cropped from it")
        return rows, columns

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width behind the first step."""
        if self.resize is None:
            return height, width
        if len(self.resize) == 2:
            return _both(self.resize)
        shorter = min(height, width)
        return round(height * self.resize[0] / shorter), round(width * self.resize[0] / shorter)


def _both(sizes: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of sizes that may be one."""
    return sizes[0], sizes[-1]


def _list(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))
