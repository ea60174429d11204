"""Filters of any shape become no shorter than asked for; longer ones and those of nothing stay."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.merging.filter_lengths import filter_length, lengthening


@given(st.integers(1, 6), st.integers(1, 4), st.sampled_from([1, 3]), st.floats(1e-3, 1e3), st.integers(0, 9))
def test_every_filter_but_those_of_zeros_becomes_so_long(filters, channels, kernel, length, seed):
    torch.manual_seed(seed)
    weight = torch.randn(filters, channels, kernel, kernel, dtype=torch.float64)
    weight[0] *= seed % 3  # of zeros at times
    before = weight.flatten(1).norm(dim=1)
    after = (weight * lengthening(length, weight)[:, None, None, None]).flatten(1).norm(dim=1)
    torch.testing.assert_close(after, torch.where(before > 0, before.clamp_min(length), 0.0))


def test_dead_filters_do_not_tell_the_length_and_a_dead_layer_tells_none():
    weight = torch.ones(5, 4, 1, 1)
    weight[:2] = 1e-20
    assert filter_length(weight) == 2
    assert filter_length(torch.zeros(5, 4, 1, 1)) == 0
    assert torch.equal(lengthening(0.0, weight), torch.ones(5, dtype=torch.float64))
