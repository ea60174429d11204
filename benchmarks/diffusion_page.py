"""The page of ``diffusion.py``: its table and its pictures, below what was written there by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trt_layermerge.files import replacing

FOLDER = Path(__file__).parents[1] / "docs" / "experiments"
PAGE = FOLDER / "diffusion.md"
MARK = "<!-- what follows is written by benchmarks/diffusion.py --page -->\n"
ROWS, COLUMNS = 4, 16
Pixels = NDArray[np.uint8]


def write_page(
    found: Mapping[str, Any], latencies: Mapping[str, Any], pictures: Mapping[str, Pixels], samplers: Sequence[str]
) -> None:
    """Write the table of all networks, and a picture of each one's first images."""
    by_hand = PAGE.read_text().partition(MARK)[0] if PAGE.exists() else "# Diffusion\n\n"
    text = [by_hand + MARK, *_table(found, latencies, list(pictures), samplers)]
    text.append(f"\nReal images, {found['samples']} of the training data, are at {found['real images']:.3f}.")
    kind, steps, *_ = samplers[0].split(":")
    text.append(f"\n## Images from the same seeds, by {kind.upper()} in {steps} steps\n")
    for name, images in pictures.items():
        file = FOLDER / f"diffusion-{name.replace(' ', '-')}.png"
        _write_grid(images[: ROWS * COLUMNS], file)
        text.append(f"{name}:\n\n![{ROWS * COLUMNS} images of the network: {name}]({file.name})\n")
    with replacing(PAGE) as neighbour:
        neighbour.write_text("\n".join(text))


def _table(
    found: Mapping[str, Any], latencies: Mapping[str, Any], names: Sequence[str], samplers: Sequence[str]
) -> list[str]:
    told = [sampler.split(":") for sampler in samplers]
    heads = [f"{kind.upper()}, {steps} steps, {count}: distance | of the original's" for kind, steps, _, count in told]
    columns = ["network", "one evaluation, ms", "speed-up", "held-out MSE", *" | ".join(heads).split(" | ")]
    if any("fid" in found[name][sampler] for name in names for sampler in samplers):
        columns += [f"{sampler}: FID" for sampler in samplers]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    base = latencies["original"][0]
    for name in names:
        middle, low, high = latencies[name]
        cells = [name, f"{middle:.2f} ({low:.2f} to {high:.2f})", f"{base / middle:.2f}x"]
        cells.append(f"{found[name]['mse']:.4f}" if "mse" in found[name] else "")
        for sampler in samplers:
            (ratio, low, high), distance = found[name][sampler]["ratio"], found[name][sampler]["distance"]
            cells += [f"{distance:.3f}", f"{ratio:.3f} ({low:.3f} to {high:.3f})"]
        cells += [f"{found[name][sampler]['fid']:.2f}" for sampler in samplers if "fid" in found[name][sampler]]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _write_grid(images: Pixels, file: Path) -> None:
    """Images ``[n, 1, 28, 28]`` of bytes side by side, in grey."""
    pixels = images.reshape(-1, COLUMNS, *images.shape[2:]).transpose(0, 2, 1, 3)
    with replacing(file) as neighbour:
        Image.fromarray(pixels.reshape(-1, COLUMNS * images.shape[3])).save(neighbour, "PNG", optimize=True)
