"""Numbers as a GPU draws them: the known answers of Philox, and a normal distribution whose parts are independent."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from gpu_noise import normal, philox


@pytest.mark.parametrize(
    ("word", "seed", "answer"),
    [
        (0, 0, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (2**32 - 1, 2**64 - 1, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ],
)
def test_philox_has_the_known_answers_of_random123(word: int, seed: int, answer: list[int]) -> None:
    found = philox([np.full(1, word, np.uint64)] * 4, seed)
    assert [int(one[0]) for one in found] == answer


def test_numbers_are_normal_and_follow_from_the_seed() -> None:
    one, other = normal(600_000, 3), normal(600_000, 4)
    assert np.array_equal(one, normal(600_000, 3))
    assert abs(one.mean()) < 0.01
    assert one.std() == pytest.approx(1, abs=0.01)
    assert abs((one * other).mean()) < 0.01
    thirds = one.reshape(-1, 200_000)
    assert np.allclose(np.corrcoef(thirds), np.eye(len(thirds)), atol=0.02)
