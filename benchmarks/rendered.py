"""Samples without labels that are drawn, the same ones every time: lines, pages, faces; and cuttings of photographs.

Each function yields ``uint8 [height, width, 3]``, as ``--task images:benchmarks/rendered.py:NAME`` takes it; ``sounds``
yields what a network hears. More lines than such a function may yield are written to a file, which ``--task
images:FILE.npy`` takes, on all cores:

    python benchmarks/rendered.py LINES FILE.npy
"""

from __future__ import annotations

import os
import random
import string
import sys
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Pixels = NDArray[np.uint8]

FACES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSerif-Italic.ttf", "DejaVuSansMono.ttf")
"""Of Debian's package fonts-dejavu; where one is missing, Pillow's own stands in."""

LINES, PAGES, PATCHES, SCENES, SOUNDS, PHOTOGRAPHS = 4000, 2000, 4000, 1000, 400, 400
"""How many of each: three fifths are calibrated and trained on."""

PHOTOGRAPH_FOLDER = "PHOTOGRAPH_FOLDER"
"""Environment variable with the folder of the photographs that are cut up."""

Colour = tuple[int, int, int]


def lines(seed: int = 0) -> Iterator[Pixels]:
    """One line of text in each, every other one upside down, as an orientation classifier gets them: 48x192."""
    draw = random.Random(seed)
    for number in range(LINES):
        line = _line(draw, (192, 48))
        yield _seen(draw, line.rotate(180) if number % 2 else line)


def wide_lines() -> Iterator[Pixels]:
    """One line of text in each, as a recogniser gets them: 48x320."""
    draw = random.Random(1)
    for _ in range(LINES):
        yield _seen(draw, _line(draw, (320, 48)))


def pages() -> Iterator[Pixels]:
    """Some lines of text at places of their own, as a text detector gets them: 320x320."""
    draw = random.Random(2)
    for _ in range(PAGES):
        yield _seen(draw, _page(draw, 320))


def turned_pages() -> Iterator[Pixels]:
    """Pages of text turned by quarters, as a classifier of documents gets them: 224x224."""
    draw = random.Random(3)
    for number in range(PAGES):
        yield _seen(draw, _page(draw, 224, straight=True).rotate(90 * (number % 4)))


def patches_24() -> Iterator[Pixels]:
    """Drawn faces, parts of them, and what is none: 24x24."""
    yield from _patches(24)


def patches_48() -> Iterator[Pixels]:
    """The same: 48x48."""
    yield from _patches(48)


def scenes() -> Iterator[Pixels]:
    """Faces of 10 to 40 pixels before clutter, as a pyramid of images shows them to a face detector: 96x128."""
    draw = random.Random(6)
    for _ in range(SCENES):
        picture = _clutter(draw).resize((128, 96), Image.Resampling.BILINEAR)
        for _ in range(draw.randint(0, 4)):
            side = draw.randint(14, 56)
            face = _face(draw).crop((16, 8, 80, 88)).resize((side, side), Image.Resampling.BILINEAR)
            picture.paste(face, (draw.randint(0, 127 - side // 2), draw.randint(0, 95 - side // 2)))
        yield _seen(draw, picture)


def sounds() -> Iterator[NDArray[np.float32]]:
    """Two seconds of one to four instruments that play notes, as a transcriber gets them: ``[43844, 1]``."""
    for number in range(SOUNDS):
        yield _music(np.random.default_rng([7, number]))[:, None]


def photographs() -> Iterator[Pixels]:
    """Parts of photographs in a folder, some of them mirrored: 224x224."""
    draw = random.Random(5)
    folder = Path(os.environ[PHOTOGRAPH_FOLDER])
    files = sorted(folder.glob("imagenet_*"))  # as foolbox calls its larger ones
    pictures = [Image.open(path).convert("RGB") for path in files]
    for number in range(PHOTOGRAPHS):
        picture = pictures[number % len(pictures)]
        side = round(min(picture.size) * draw.uniform(0.5, 1.0))
        left, top = (draw.randint(0, size - side) for size in picture.size)
        part = picture.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BILINEAR)
        yield np.asarray(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else part)


def _font(draw: random.Random, size: int) -> Any:
    try:
        return ImageFont.truetype(draw.choice(FACES), size)
    except OSError:
        return ImageFont.load_default(size)


def _text(draw: random.Random, letters: int) -> str:
    """Words that are none, with capitals, numbers and stops among them."""
    words: list[str] = []
    while sum(map(len, words)) + len(words) < letters:
        word = "".join(draw.choices("etaoinshrdlucmfwypvbgkjqxz", range(27, 1, -1), k=draw.randint(2, 9)))
        number = "".join(draw.choices(string.digits, k=draw.randint(1, 5)))
        words.append(draw.choice((word, word, word.capitalize(), word.upper(), number, f"{word}{draw.choice('.,:;')}")))
    return " ".join(words)[:letters].strip() or "a"


def _colours(draw: random.Random) -> tuple[Colour, Colour]:
    """Ink and paper, far enough apart to be read."""
    paper = draw.randint(150, 255), draw.randint(150, 255), draw.randint(150, 255)
    ink = draw.randint(0, 90), draw.randint(0, 90), draw.randint(0, 90)
    return (paper, ink) if draw.random() < 0.2 else (ink, paper)


def _line(draw: random.Random, size: tuple[int, int]) -> Image.Image:
    """A line that fills most of an image, cut off where it is longer."""
    ink, paper = _colours(draw)
    font = _font(draw, draw.randint(22, 36))
    text = _text(draw, draw.randint(4, size[0] // 14))
    left, top, _, bottom = font.getbbox(text)
    picture = Image.new("RGB", size, paper)
    place = draw.randint(2, 10) - left, (size[1] - (bottom - top)) // 2 - top + draw.randint(-3, 3)
    ImageDraw.Draw(picture).text(place, text, ink, font)
    return picture.rotate(draw.uniform(-2, 2), Image.Resampling.BILINEAR, fillcolor=paper)


def _page(draw: random.Random, side: int, *, straight: bool = False) -> Image.Image:
    """Lines of text, one below the other; loose ones of several sizes, or straight ones from edge to edge."""
    ink, paper = _colours(draw)
    picture = Image.new("RGB", (side, side), paper)
    brush, top = ImageDraw.Draw(picture), draw.randint(4, 24)
    usual = draw.randint(9, 18)
    while top < side - 20:
        size = usual if straight else draw.randint(11, 30)
        text = _text(draw, 2 * side // usual if straight else draw.randint(3, max(4, side // size)))
        brush.text((8 if straight else draw.randint(4, side // 2), top), text, ink, _font(draw, size))
        top += round(size * draw.uniform(1.2, 1.4 if straight else 2.5))
    return picture


def _patches(side: int) -> Iterator[Pixels]:
    draw = random.Random(4)
    for number in range(PATCHES):
        large = _face(draw) if number % 3 else _clutter(draw)
        cut = draw.uniform(0.6, 1.0)
        corner = [draw.uniform(0, 96 * (1 - cut)) for _ in "xy"]
        box = (*corner, *(one + 96 * cut for one in corner))
        yield _seen(draw, large.resize((side, side), Image.Resampling.BILINEAR, box=box))


def _face(draw: random.Random) -> Image.Image:
    """An oval with eyes, nose and mouth before clutter."""
    picture = _clutter(draw)
    brush = ImageDraw.Draw(picture)
    skin = (red := draw.randint(120, 240)), round(0.75 * red), round(0.6 * red)
    x, y, wide, high = (48 + draw.randint(-8, 8) for _ in range(4))
    wide, high = round(0.55 * wide), round(0.75 * high)
    brush.ellipse((x - wide, y - high, x + wide, y + high), skin)
    for side in (-1, 1):
        eye = x + side * wide // 2
        brush.ellipse((eye - 6, y - high // 3 - 3, eye + 6, y - high // 3 + 3), (240, 240, 240))
        brush.ellipse((eye - 2, y - high // 3 - 2, eye + 2, y - high // 3 + 2), (20, 20, 20))
    brush.line((x, y - 6, x - 3, y + 8, x + 3, y + 8), tuple(round(0.6 * one) for one in skin), 2)
    brush.arc((x - 10, y + high // 3 - 6, x + 10, y + high // 3 + 6), 0, 180, (150, 40, 40), 3)
    return picture.filter(ImageFilter.GaussianBlur(draw.uniform(0.5, 2)))


def _clutter(draw: random.Random) -> Image.Image:
    """Coloured boxes and ovals."""
    picture = Image.new("RGB", (96, 96), _any_colour(draw))
    brush = ImageDraw.Draw(picture)
    for _ in range(draw.randint(2, 12)):
        x, y = sorted(draw.sample(range(96), 2)), sorted(draw.sample(range(96), 2))
        shape = brush.ellipse if draw.random() < 0.5 else brush.rectangle
        shape((x[0], y[0], x[1], y[1]), _any_colour(draw))
    return picture


def _music(draw: np.random.Generator) -> NDArray[np.float32]:
    """Notes with overtones that fade, and noise, at 22,050 Hz."""
    rate, length = 22050, 43844
    heard = draw.normal(0, draw.uniform(0, 0.01), length)
    for _ in range(draw.integers(2, 14)):
        begin, pitch = int(draw.integers(0, length - 2000)), 440 * 2 ** ((draw.integers(36, 90) - 69) / 12)
        time = np.arange(length - begin) / rate
        fading = np.minimum(time / 0.01, 1) * np.exp(-time / draw.uniform(0.1, 1.0))
        overtones = range(1, int(draw.integers(2, 8)))
        tone = sum(draw.uniform(0.3, 1) / n * np.sin(2 * np.pi * n * pitch * time) for n in overtones)
        heard[begin:] += draw.uniform(0.05, 0.3) * fading * tone
    return np.clip(heard, -1, 1).astype(np.float32)


def _any_colour(draw: random.Random) -> Colour:
    return draw.randint(0, 255), draw.randint(0, 255), draw.randint(0, 255)


def _seen(draw: random.Random, picture: Image.Image) -> Pixels:
    """As a camera sees it: a little blurred, with noise."""
    blurred = picture.filter(ImageFilter.GaussianBlur(draw.uniform(0, 0.8)))
    noise = np.random.default_rng(draw.randrange(1 << 32)).normal(0, draw.uniform(0, 8), (*picture.size[::-1], 3))
    return np.clip(np.asarray(blurred) + noise, 0, 255).astype(np.uint8)


def _drawn_lines(seed: int) -> Pixels:
    return np.stack(list(lines(seed)))


def write_lines(count: int, path: Path) -> None:
    """Write ``[count, 48, 192, 3]``: those of ``lines``, then those of seeds that no other function has."""
    seeds = [0, *range(100, 99 + -(-count // LINES))]
    written = np.lib.format.open_memmap(path, "w+", np.uint8, (count, 48, 192, 3))
    with Pool() as pool:
        for number, some in enumerate(pool.imap(_drawn_lines, seeds)):
            part = written[number * LINES : (number + 1) * LINES]
            part[:] = some[: len(part)]
    written.flush()


if __name__ == "__main__":
    write_lines(int(sys.argv[1]), Path(sys.argv[2]))
