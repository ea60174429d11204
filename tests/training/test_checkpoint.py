from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from trt_layermerge.errors import IncompatibleError, TableError
from trt_layermerge.training.checkpoint import CHECKPOINT_FORMAT, Checkpoint, Identity, Position, digest

IDENTITY: Identity = {"task": "tiny", "recipe lr": 0.1, "recipe epochs": 2, "teacher": None}


def checkpoint() -> Checkpoint:
    tied = torch.randn(3, 2)
    weights = {"a.weight": tied, "b.weight": tied, "count": torch.tensor(7), "none": torch.zeros(0)}
    kernel = torch.randn(2, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    weights |= {"kernel": kernel, "half": torch.randn(2).bfloat16()}
    return Checkpoint(IDENTITY, Position(3, (0.1 + 0.2,), 1e-17), weights, {"a.weight": torch.ones(3, 2)})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoint") / "run.checkpoint"
    checkpoint().write(path)
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, saved = tmp_path / "new folder" / "run.checkpoint", checkpoint()
    saved.write(path)
    found = Checkpoint.read(path)
    assert (found.identity, found.position) == (saved.identity, saved.position)
    for there, here in ((found.weights, saved.weights), (found.momenta, saved.momenta)):
        assert there.keys() == here.keys()
        assert all(torch.equal(there[name], here[name]) for name in here)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@settings(deadline=None, max_examples=150, database=None)
@given(data=st.data())
def test_a_file_cut_short_or_altered_is_damaged(
    written: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.checkpoint"
    place = data.draw(st.integers(0, len(written) - 1))
    altered = bytearray(written)
    altered[place] ^= data.draw(st.integers(1, 255))
    for content in (written[:place], bytes(altered)):
        path.write_bytes(content)
        try:
            found = Checkpoint.read(path)
        except (TableError, IncompatibleError) as error:
            assert error.hint is not None and str(path) in error.message
        else:  # one white space became another; there is no other way
            path.write_bytes(written)
            whole = Checkpoint.read(path)
            assert (found.identity, found.position) == (whole.identity, whole.position)
            assert digest(found.weights) == digest(whole.weights) and digest(found.momenta) == digest(whole.momenta)


def test_a_damaged_file_is_bad_input_and_says_to_delete_it(tmp_path: Path, written: bytes) -> None:
    path = tmp_path / "run.checkpoint"
    path.write_bytes(written[:-5])
    with pytest.raises(TableError, match="damaged") as caught:
        Checkpoint.read(path)
    assert caught.value.exit_code == 3 and "delete" in str(caught.value.hint)


def test_weights_of_someone_else_are_never_offered_for_deletion(tmp_path: Path) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(TableError, match="not a training checkpoint") as caught:
        Checkpoint.read(path)
    assert "delete" not in str(caught.value)
    assert load_file(path).keys() == {"w"}


def test_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    save_file({"w": torch.zeros(2)}, path, {"format": CHECKPOINT_FORMAT, "version": "3"})
    with pytest.raises(IncompatibleError, match=r"version 3.*reads version 2"):
        Checkpoint.read(path)


def test_what_differs_is_named() -> None:
    with pytest.raises(IncompatibleError) as caught:
        checkpoint().require(IDENTITY | {"recipe lr": 0.2, "new": 1}, Path("run.checkpoint"))
    assert "recipe lr: 0.1 there, 0.2 here; new: absent there, 1 here" in caught.value.message
    assert "epochs" not in caught.value.message
    assert caught.value.exit_code == 9


def test_a_long_list_of_differences_is_cut() -> None:
    many: Identity = {f"tensor {i}": "float32[1]" for i in range(20)}
    with pytest.raises(IncompatibleError, match="and 15 more"):
        checkpoint().require(IDENTITY | many, Path("run.checkpoint"))


def test_a_digest_sees_names_types_shapes_and_bits_but_no_layout() -> None:
    kernel = torch.randn(2, 3, 4, 4)
    same = kernel.contiguous(memory_format=torch.channels_last)
    assert digest({"a": kernel, "b": torch.ones(1)}) == digest({"b": torch.ones(1), "a": same})
    others = [{"a": kernel}, {"b": kernel}, {"a": kernel.view(3, 2, 4, 4)}, {"a": kernel.view(torch.int32)}]
    assert len({digest(other) for other in others}) == 4
    assert digest({"a": torch.tensor(0.0)}) != digest({"a": torch.tensor(-0.0)})


def test_a_number_of_any_stride_has_a_digest() -> None:
    number = torch.zeros(1, 1, 4, 4).as_strided((1, 1, 1, 1), (16, 16, 16, 16))
    assert digest({"a": number}) == digest({"a": torch.zeros(1, 1, 1, 1)})
