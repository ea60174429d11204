"""The Frechet distance of the benchmark of diffusion: what it is of distributions that are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from frechet import distance_ratio, frechet_distance, inception_distance, moments

numbers = st.lists(st.floats(0.1, 10), min_size=3, max_size=3).map(np.array)


@given(numbers, numbers, numbers, numbers)
def test_of_independent_features_it_is_that_of_each(
    mean: np.ndarray, other_mean: np.ndarray, spread: np.ndarray, other: np.ndarray
) -> None:
    found = frechet_distance((mean, np.diag(spread**2)), (other_mean, np.diag(other**2)))
    assert found == pytest.approx(np.square(mean - other_mean).sum() + np.square(spread - other).sum(), rel=1e-6)


def test_it_is_nothing_to_itself_and_the_same_both_ways() -> None:
    generator = np.random.default_rng(0)
    one, other = (moments(generator.normal(size=(50, 8)) @ generator.normal(size=(8, 8))) for _ in range(2))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one))


def test_a_ratio_lies_in_its_interval_and_is_one_of_the_same_images() -> None:
    generator = np.random.default_rng(0)
    real, base = moments(generator.normal(size=(500, 4))), generator.normal(0.5, 1, size=(200, 4))
    assert distance_ratio(base, base, real, draws=5) == (1, 1, 1)
    middle, low, high = distance_ratio(base + 0.1, base, real, draws=50)
    assert 1 < low < middle < high


def test_the_inception_distance_reads_the_weights_that_it_is_given(tmp_path: Path) -> None:
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3").FeatureExtractorInceptionV3

    class Random(inception):  # type: ignore[misc, valid-type]
        def load_state_dict(self, *_: object) -> None:
            """Keep those that it was made with."""

    weights = tmp_path / "inception.pth"
    torch.save({}, weights)
    torch.manual_seed(0)
    torch.save(Random("random", ["2048"], str(weights)).state_dict(), weights)
    images = np.random.default_rng(0).uniform(-1, 1, (8, 1, 28, 28)).astype(np.float32)
    same, other = (inception_distance(images, images / by, weights) for by in (1, 3))
    assert other > 1000 * abs(same)
