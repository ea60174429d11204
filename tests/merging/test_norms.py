from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trt_layermerge.merging import norms
from trt_layermerge.merging.norms import estimate_norms


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)]
    return nn.Sequential(*layers).eval()


def test_the_first_norm_gets_the_statistics_of_all_samples() -> None:
    module, images = network(), 3 * torch.randn(48, 2, 5, 5) + 1
    estimate_norms(module, [(part,) for part in images.split(16)])
    reached = module[0](images)
    norm = module[1]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, reached.mean((0, 2, 3)))
    expected = torch.stack([part.var((0, 2, 3)) for part in reached.split(16)]).mean(0)
    torch.testing.assert_close(norm.running_var, expected)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_small_batches_are_as_good_as_large_ones(size: int) -> None:
    """A task may yield one image at a time."""
    small, large, images = network(), network(), 3 * torch.randn(40, 2, 5, 5) + 1
    estimate_norms(small, [(part,) for part in images.split(size)])
    estimate_norms(large, [(part,) for part in images.split(16)])
    for name, value in large.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], value)
    assert not torch.equal(small.state_dict()["1.running_mean"], network().state_dict()["1.running_mean"])


def test_joining_is_bounded_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "NUMBERS", 3 * 2 * 5 * 5)
    sizes: list[int] = []
    module = network()
    module.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    estimate_norms(module, [(part,) for part in torch.randn(10, 2, 5, 5).split(1)])
    assert sizes == [3, 3, 3]


def test_a_change_of_scale_and_offset_is_taken_back() -> None:
    module, batches = network(), [(torch.randn(32, 2, 5, 5),) for _ in range(3)]
    estimate_norms(module, batches)
    before = module(batches[0][0])
    with torch.no_grad():
        module[0].weight.mul_(7.0)
        assert module[0].bias is not None
        module[0].bias.add_(5.0)
    assert (module(batches[0][0]) - before).abs().max() > 0.5
    estimate_norms(module, batches)
    torch.testing.assert_close(module(batches[0][0]), before, atol=1e-4, rtol=1e-4)


@given(st.lists(st.integers(0, 5), max_size=4))
def test_modes_weights_and_momenta_stay(sizes: list[int]) -> None:
    module = network()
    before = copy.deepcopy(module)
    estimate_norms(module, [(torch.randn(size, 2, 5, 5),) for size in sizes])
    assert not any(part.training for part in module.modules())
    assert [part.momentum for part in module.modules() if isinstance(part, nn.BatchNorm2d)] == [0.1, 0.1]
    for (name, old), new in zip(before.state_dict().items(), module.state_dict().values(), strict=True):
        same = "running" not in name and "tracked" not in name
        assert torch.equal(old, new) or not (same or sum(sizes) < 2), name


def test_without_norms_nothing_is_run() -> None:
    module = nn.Conv2d(1, 1, 1)
    estimate_norms(module, iter([(torch.zeros(()),)]))  # would not run
