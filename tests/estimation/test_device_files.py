from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trt_layermerge.errors import UsageError
from trt_layermerge.estimation.device_files import DEVICE_FOLDER, MEASURED, device_names, read_card, write_card


def test_every_card_can_be_read_and_says_where_it_is_from() -> None:
    assert device_names()[0] == MEASURED and {"t4", "rtx-2080", "rtx-3090", "rtx-4090"} <= set(device_names())
    for name in device_names():
        card = read_card(name)
        assert card.sheet.name == name and len(card.provenance) > 40
        assert bool(card.own) is (name == MEASURED)
        assert card.own or card.provenance.startswith("Transferred")
        assert set(card.transfer) == {"fp32", "fp16", "int8"}


def test_the_measured_card_tells_its_errors_by_algorithm() -> None:
    card = read_card(MEASURED)
    assert set(card.own) == set(card.coverage) and sum(one.rows for one in card.own.values()) == 171
    assert all(one.low < 0 < one.high for one in card.own.values())
    assert card.timing == "torch-call" and card.transfer_timing == "engine"


def test_a_card_that_was_written_is_read_back(tmp_path: Path) -> None:
    card = replace(read_card("t4"), provenance='"quoted"\nin two lines', constants_of="t4")
    write_card(tmp_path / "mine.toml", card)
    assert read_card(str(tmp_path / "mine.toml")) == card


def test_an_unknown_card_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        read_card("rtx-5090")
    assert caught.value.hint is not None and all(name in caught.value.hint for name in device_names())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("multiprocessors = 68", "multiprocessors = 0", "sheet"),
        ("gemm = ", "gemn = ", "gemm"),
        ("gemm = ", "gemm = -", "gemm"),
        ("[sheet]", "[[sheet]", "cannot read"),
        ('timing = "torch-call"', 'timing = "hourglass"', "timing"),
        ('title = "', 'title = 7 #"', "title"),
    ],
)
def test_a_file_that_is_no_card_is_refused(old: str, new: str, words: str, tmp_path: Path) -> None:
    text = (DEVICE_FOLDER / f"{MEASURED}.toml").read_text()
    assert old in text
    (tmp_path / "card.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError, match=r"card\.toml") as caught:
        read_card(str(tmp_path / "card.toml"))
    assert words in caught.value.message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        read_card(str(tmp_path / "nowhere.toml"))


def test_a_sheet_of_constants_that_are_nowhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.toml"
    for base in ("gtx-1080", str(path)):
        path.write_text(f'constants_of = "{base}"\n[sheet]\nname = "mine"\n')
        with pytest.raises(UsageError, match="there is no device"):
            read_card(str(path))


def test_a_data_sheet_alone_takes_the_constants_of_a_card_that_is_known(tmp_path: Path) -> None:
    text = (DEVICE_FOLDER / "t4.toml").read_text().replace('name = "t4"', 'name = "t4-at-50-w"').replace("1.04", "0.8")
    (tmp_path / "mine.toml").write_text(text)
    mine, known = read_card(str(tmp_path / "mine.toml")), read_card("t4")
    assert mine.constants == known.constants and not mine.own
    assert mine.sheet == replace(known.sheet, name="t4-at-50-w", clock_ghz=0.8)


@pytest.mark.parametrize("content", ["a = " + "[" * 3000, "a = 1e300", "a = " + "9" * 5000, "a", "sheet = 1"])
def test_a_file_of_nobodys_card_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(content)
    with pytest.raises(UsageError, match=r"mine\.toml|there is no device") as caught:
        read_card(str(tmp_path / "mine.toml"))
    assert "\n" not in caught.value.message
