from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trt_layermerge.merging import norms
from trt_layermerge.merging.norms import correct_norms, joined_batches, norm_inputs

Batches = list[tuple[Tensor, ...]]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)]
    for norm in (layers[1], layers[5]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(*layers).eval()


def batches(count: int = 3, size: int = 16) -> Batches:
    return [(3 * torch.randn(size, 2, 5, 5) + 1,) for _ in range(count)]


def corrected(original: nn.Module, module: nn.Module, data: Batches) -> nn.Module:
    correct_norms(module, data, norm_inputs(original, data))
    return module


@given(st.integers(1, 4), st.integers(1, 20))
def test_where_nothing_has_changed_nothing_does(count: int, size: int) -> None:
    """Statistics of the original are those of other data, and stay."""
    original, module = network(), corrected(network(), network(), batches(count, size))
    for name, value in original.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, atol=1e-5, rtol=1e-5)


def test_a_change_of_scale_and_offset_is_taken_back() -> None:
    original, module, data = network(), network(), batches()
    with torch.no_grad():
        module[0].weight.mul_(7.0)
        module[0].bias.mul_(7.0).add_(5.0)
    assert (module(*data[0]) - original(*data[0])).abs().max() > 0.5
    corrected(original, module, data)
    torch.testing.assert_close(module(*data[0]), original(*data[0]), atol=1e-3, rtol=1e-3)


def test_norms_move_as_what_reaches_them() -> None:
    original, module, data = network(), network(), batches()
    with torch.no_grad():
        module[0].bias.add_(torch.tensor([1.0, 2.0, 3.0]))
    corrected(original, module, data)
    moved = module[1].running_mean - original[1].running_mean
    torch.testing.assert_close(moved, torch.tensor([1.0, 2.0, 3.0]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(module[1].running_var, original[1].running_var, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(module[5].running_mean, original[5].running_mean, atol=1e-4, rtol=1e-4)


def test_norms_of_other_channels_or_that_are_called_twice_stay() -> None:
    original, data = network(), batches()
    narrow = nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)).eval()
    before = copy.deepcopy(narrow.state_dict())
    assert all(
        torch.equal(value, before[name]) for name, value in corrected(original, narrow, data).state_dict().items()
    )
    norm = nn.BatchNorm2d(2)
    assert norm_inputs(nn.Sequential(norm, norm).eval(), data) == [{}, {}, {}]


def test_only_those_that_are_asked_for_move() -> None:
    original, module, data = network(), network(), batches()
    with torch.no_grad():
        module[0].weight.mul_(2.0)
    correct_norms(module, data, norm_inputs(original, data), among=["5"])
    assert torch.equal(module[1].running_var, original[1].running_var)
    assert not torch.equal(module[5].running_var, original[5].running_var)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_small_batches_are_joined(size: int) -> None:
    """A task may yield one image at a time."""
    images = torch.randn(40, 2, 5, 5)
    joined = list(joined_batches([(part,) for part in images.split(size)]))
    assert [len(part) for (part,) in joined] == [16, 16, 8]
    assert torch.equal(torch.cat([part for (part,) in joined]), images)


def test_joining_is_bounded_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "NUMBERS", 3 * 2 * 5 * 5)
    joined = joined_batches([(part,) for part in torch.randn(10, 2, 5, 5).split(1)])
    assert [len(part) for (part,) in joined] == [3, 3, 3, 1]


def test_without_norms_nothing_is_run() -> None:
    correct_norms(nn.Conv2d(1, 1, 1), iter([(torch.zeros(()),)]), [{}])  # would not run
