"""Fashion-MNIST as a task: where its files come from, how they are normalised and augmented.

The data is the Debian package ``dataset-fashion-mnist`` (MIT licence): installed, or unpacked into ``data/`` beside
this file without root. Where there is no ``apt-get``, torchvision's own download is used.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from trt_layermerge.training.task import Classification

DATA = Path(__file__).parent / "data"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
MEAN, STD = 0.2860, 0.3530
"""Of the training images scaled to 0..1."""


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for names in FILES.values() for name in names)


def _unpack_debian_package() -> None:
    """Fetch the Debian package and unpack it, as any user: nothing is installed.

    Where the machine's own package lists do not know it, which they do not on a new one, private lists are fetched.
    """
    with tempfile.TemporaryDirectory() as scratch:
        download = ["apt-get", "download", "dataset-fashion-mnist"]
        try:
            _quietly(*download, folder=scratch)
        except RuntimeError:
            private = ["-o", f"Dir::State::lists={scratch}/lists", "-o", f"Dir::Cache={scratch}/cache"]
            for folder in ("lists/partial", "cache/archives/partial"):
                (Path(scratch) / folder).mkdir(parents=True)
            _quietly("apt-get", "update", *private, folder=scratch)
            _quietly(*download, *private, folder=scratch)
        package = next(Path(scratch).glob("dataset-fashion-mnist_*.deb"))
        _quietly("dpkg-deb", "-x", package.name, ".", folder=scratch)
        DATA.mkdir(exist_ok=True)
        for names in FILES.values():
            for name in names:
                shutil.move(f"{scratch}{INSTALLED}/{name}", DATA / name)


def _quietly(*command: str, folder: str) -> None:
    """Run a command; what it says is of interest only if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed: {done.stderr.strip() or done.stdout.strip()}")


def _download() -> None:
    """Fetch the same four files with torchvision."""
    from torchvision.datasets import FashionMNIST  # only where apt-get is missing

    FashionMNIST(str(DATA), download=True)
    for names in FILES.values():
        for name in names:
            shutil.move(DATA / "FashionMNIST" / "raw" / name, DATA / name)


def data_folder() -> Path:
    """The folder with the four files, fetched if they are not here yet.

    Raises:
        RuntimeError: They cannot be had; the message says where to put them by hand.
    """
    for folder in (DATA, INSTALLED):
        if _complete(folder):
            return folder
    fetch = _unpack_debian_package if shutil.which("apt-get") and shutil.which("dpkg-deb") else _download
    try:
        fetch()
    except (OSError, RuntimeError) as error:
        names = ", ".join(name for pair in FILES.values() for name in pair)
        raise RuntimeError(f"cannot fetch Fashion-MNIST ({error}); put {names} into {DATA}") from error
    return DATA


def _idx(path: Path, header: int) -> Tensor:
    with gzip.open(path, "rb") as file:
        file.read(header)
        return torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)


def load(part: str) -> TensorDataset:
    """``train`` (60,000) or ``test`` (10,000): images ``[n, 1, 28, 28]``, normalised, and their labels ``[n]``."""
    folder, (images, labels) = data_folder(), FILES[part]
    pixels = _idx(folder / images, 16).view(-1, 1, 28, 28).float().div_(255).sub_(MEAN).div_(STD)
    return TensorDataset(pixels, _idx(folder / labels, 8).long())


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip each image with probability one half and shift it by up to two pixels each way."""
    n, _, height, width = images.shape
    flip = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    images = torch.where(flip, images.flip(3), images)
    padded = F.pad(images, (2, 2, 2, 2), value=-MEAN / STD)  # black, as the images' own border
    rows = torch.randint(0, 5, (n, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 5, (n, 1), generator=generator) + torch.arange(width)
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def task() -> Classification:
    """55,000 images to train on, 2,048 of them for calibration, 5,000 held out; 10,000 to test."""
    return Classification(
        name="Fashion-MNIST", train=load("train"), test=load("test"), augment=augment, label_smoothing=0.0
    )
