"""Samples from folders, arrays and functions: what is read, and what is told of what cannot be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trt_layermerge.errors import Caution, ExitCode, RuntimeNotAvailableError, TaskError
from trt_layermerge.training.unlabelled import arrays, image_files
from trt_layermerge.training.unlabelled.arrays import Arrays
from trt_layermerge.training.unlabelled.comparing import Comparing
from trt_layermerge.training.unlabelled.image_files import ImageFiles
from trt_layermerge.training.unlabelled.load_unlabelled import unlabelled
from trt_layermerge.training.unlabelled.prepared_image import prepared
from trt_layermerge.training.unlabelled.preprocessing import Preprocessing
from trt_layermerge.training.unlabelled.samples import SampleSet

image = pytest.importorskip("PIL.Image")

PLAIN = Preprocessing()


def pixels(number: int, height: int = 6, width: int = 5) -> Any:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(10):
        place = tmp_path / "photos" / ("deep/er" if number % 2 else ".")
        place.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels(number)).save(place / f"{number}.png")
    (tmp_path / "photos" / "README.txt").write_text("no image")
    return tmp_path / "photos"


def read_all(samples: SampleSet) -> list[torch.Tensor]:
    return [samples.read(index)[0] for index in range(len(samples.digests))]


def test_a_folder_is_read_with_all_below_it(folder: Path) -> None:
    found = {values.numpy().tobytes() for values in read_all(ImageFiles.below(folder, PLAIN))}
    assert found == {prepared(torch.from_numpy(pixels(number)), PLAIN).numpy().tobytes() for number in range(10)}


def test_names_are_of_no_consequence(folder: Path) -> None:
    before = list(unlabelled(folder, Comparing()).calibration_batches())
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        file.rename(folder / f"renamed-{9 - number}.PNG")
    after = unlabelled(folder, Comparing()).calibration_batches()
    for (once, _), (again, _) in zip(before, after, strict=True):
        torch.testing.assert_close(once, again, rtol=0, atol=0)


def test_the_hash_of_the_data_is_of_its_content_wherever_that_lies(folder: Path, tmp_path: Path) -> None:
    before = unlabelled(folder, Comparing()).data_hash
    assert unlabelled(folder, Comparing(Preprocessing(mean=(0.1000001,)))).data_hash != before
    assert unlabelled(folder, Comparing(distances=(("output", "logits"),))).data_hash != before
    elsewhere = folder.rename(tmp_path / "elsewhere")
    (elsewhere / "0.png").rename(elsewhere / "last.png")
    assert unlabelled(elsewhere, Comparing()).data_hash == before
    image.fromarray(pixels(99)).save(elsewhere / "last.png")
    assert unlabelled(elsewhere, Comparing()).data_hash != before


def test_the_same_images_of_a_folder_an_array_and_a_function_are_the_same(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "all.npy", np.stack([pixels(number) for number in range(10)]))
    (tmp_path / "gen.py").write_text(
        "import numpy as np\ndef images():\n"
        "    for n in range(10):\n        yield np.random.default_rng(n).integers(0, 256, (6, 5, 3), np.uint8)\n"
    )
    steps = Preprocessing(resize=(4, 4), channels="bgr", mean=(0.5,))
    places = (folder, tmp_path / "all.npy", tmp_path / "gen.py")
    ways = [unlabelled(place, Comparing(steps)).samples for place in places]
    first, *others = ([values.numpy().tobytes() for values in read_all(way)] for way in ways)
    assert all(sorted(other) == sorted(first) for other in others)


def test_planes_first_and_grey_images_of_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "planes.npy", np.stack([pixels(n).transpose(2, 0, 1) for n in range(8)]))
    np.save(tmp_path / "grey.npy", np.stack([pixels(n)[..., 0] for n in range(8)]))
    (planes,), (grey,) = (Arrays.of_file(tmp_path / f"{name}.npy", PLAIN).read(0) for name in ("planes", "grey"))
    assert planes.shape == grey.shape == (3, 6, 5)
    torch.testing.assert_close(planes, prepared(torch.from_numpy(pixels(0)), PLAIN))


def test_real_and_whole_numbers_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(
        "import numpy as np\ndef frames():\n"
        "    for n in range(9):\n        yield np.full((2, 3), n, np.float64), np.int32(n)\n"
    )
    task = unlabelled(Path(f"{tmp_path / 'two.py'}:frames"), Comparing())
    real, whole = task.samples.read(4)
    assert real.dtype == torch.float32 and real.tolist() == [[4.0] * 3] * 2
    assert whole.dtype == torch.int64 and whole.shape == () and int(whole) == 4


def test_a_function_that_never_ends_is_taken_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MOST_GENERATED", 12)
    (tmp_path / "gen.py").write_text(
        "import itertools, numpy as np\n"
        "def images():\n    return (np.full((4, 4), n, 'f') for n in itertools.count())\n"
    )
    with pytest.warns(Caution, match="the first 12 samples"):
        assert len(unlabelled(tmp_path / "gen.py", Comparing()).samples.digests) == 12


def test_a_function_may_fill_one_buffer_again_and_again(tmp_path: Path) -> None:
    (tmp_path / "gen.py").write_text(
        "import numpy as np\ndef images():\n    frame = np.empty((4, 4), 'f')\n"
        "    for n in range(9):\n        frame.fill(n)\n        yield frame\n"
    )
    samples = unlabelled(tmp_path / "gen.py", Comparing()).samples
    assert [float(values[0, 0]) for values in read_all(samples)] == list(range(9))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_upright(folder: Path, orientation: int) -> None:
    upright, exif = pixels(1), image.Exif()
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 1, 7: 3, 8: 3}[orientation]
    held = np.rot90(upright, turns)  # what turning back gives the picture
    held = held[:, ::-1] if orientation in (2, 4) else held[::-1] if orientation in (5, 7) else held
    exif[0x0112] = orientation
    image.fromarray(np.ascontiguousarray(held)).save(folder / "1.png", exif=exif)
    (folder / "deep/er/1.png").unlink()
    samples = ImageFiles.below(folder, PLAIN)
    found = samples.read(samples.files.index(folder / "1.png"))[0]
    torch.testing.assert_close(found, prepared(torch.from_numpy(upright), PLAIN))


def broken(folder: Path) -> None:
    whole = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda folder: [file.unlink() for file in folder.rglob("*.png")], "no image in .*photos.*\n.*jpeg"),
        (lambda folder: (folder / "3.jpg").write_bytes(b"no image"), "3.jpg cannot be read: cannot identify"),
        (broken, "0.png cannot be read: .*truncated"),
        (lambda folder: image.fromarray(pixels(1, 9, 5)).save(folder / "b.png"), "6x5, .*b.png is 9x5.*\n.*--resize"),
        (lambda folder: image.new("I;16", (5, 6)).save(folder / "0.png"), "0.png has more than eight bits"),
        (lambda folder: [file.write_bytes(b"x") for file in folder.rglob("*.png")], "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_told(folder: Path, break_it: Any, words: str) -> None:
    break_it(folder)
    with pytest.raises(TaskError, match=words) as caught:
        read_all(unlabelled(folder, Comparing()).samples)
    assert caught.value.exit_code == ExitCode.BAD_INPUT


def test_images_smaller_than_their_middle_are_told(folder: Path) -> None:
    with pytest.raises(TaskError, match="png is 6x5 there, and 7x7 are to be cropped from it"):
        ImageFiles.below(folder, Preprocessing(crop=(7,)))


def test_without_pillow_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RuntimeNotAvailableError, match="Pillow, which is not installed"):
        image_files.ImageFiles.below(folder, PLAIN)


def saved(path: Path, array: Any) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(5, np.float32), "is no array of samples"),
        (np.zeros((0, 3, 4, 4), np.float32), "there is no sample in"),
        (np.zeros((9, 4), np.complex64), "holds complex64.*\n.*uint8 for images"),
        (np.zeros((9, 4), np.uint16), "holds uint16"),
        (np.array([[None, 1]] * 9), "cannot read the array .*Python objects"),
        (np.full((9, 4), np.nan, np.float32), "sample 0 of .* has inf or NaN"),
        (np.arange(360, dtype=np.uint16).astype(np.uint8).reshape(9, 5, 4, 2), r"an image is \[5, 4, 2\]"),
        (np.zeros((9, 4, 4), np.float32), "there are 1 different samples"),
    ],
)
def test_what_is_wrong_with_an_array_is_told(tmp_path: Path, array: Any, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        unlabelled(saved(tmp_path / "a.npy", array), Comparing()).samples.read(0)


def test_steps_for_what_is_prepared_already_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", np.arange(48, dtype=np.float32).reshape(12, 4))
    with pytest.raises(TaskError, match="no image of bytes but float32"):
        unlabelled(path, Comparing(Preprocessing(mean=(0.5,))))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "has no function 'images'"),
        ("def images():\n    raise OSError('gone')\n", r"OSError: gone \(.*gen.py, line 2\)"),
        ("def images():\n    import sys; sys.exit(0)\n", "ends the process"),
        ("def images():\n    yield 'text'\n    yield [object()]\n", "sample 1 is a list and no array"),
        ("def images():\n    yield None\n", "sample 0 is a NoneType and no array"),
        ("def images():\n    return 5\n", "not iterable"),
        ("import numpy as n\ndef images():\n    yield n.zeros(3)\n    yield n.zeros(4)\n", r"sample 1 .* float64\[4\]"),
    ],
)
def test_what_is_wrong_with_a_function_is_told(tmp_path: Path, source: str, words: str) -> None:
    (tmp_path / "gen.py").write_text(source)
    with pytest.raises(TaskError, match=words):
        unlabelled(tmp_path / "gen.py", Comparing())


@pytest.mark.parametrize("name", ["nowhere", "gone.npy", "gone.py", "notes.txt"])
def test_what_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskError, match=r"nowhere|gone|notes"):
        unlabelled(tmp_path / name, Comparing())


@pytest.mark.parametrize("header", ["{'descr': '<f4', ", "{'descr': '<f4', 'fortran_order': False, 'shape': (9e99,)}"])
def test_a_header_that_numpy_itself_stumbles_over_is_told(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.npy"
    for text in (header, header.replace("9e99", "9" * 40)):
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(16))
        with pytest.raises(TaskError, match="cannot read the array"):
            Arrays.of_file(path, Preprocessing())
