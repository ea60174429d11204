"""The double refuses what torch with CUDA refuses, or a test that passes on it would show nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.doubles.gpu import GPU, GpuTensor, gpu


@pytest.fixture(autouse=True)
def present() -> Iterator[None]:
    with gpu():
        yield


MIXED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "a sum": lambda there, here: there + here,
    "a sum, the other way around": lambda there, here: here + there,
    "in place": lambda there, here: there.add_(here),
    "a product of matrices": lambda there, here: there @ here,
    "joined": lambda there, here: torch.cat([there, here]),
    "chosen": lambda there, here: torch.where(there > 0, there, here),
    "written into by indices": lambda there, here: there.__setitem__(torch.tensor([0]), here[:1]),
    "a number from there": lambda there, here: here + there.sum(),
    "indices from there": lambda there, here: here[torch.arange(2).to(GPU)],
    "a layer's input": lambda there, here: nn.Linear(2, 2).to(GPU)(here),
    "a layer's weights": lambda there, here: nn.Linear(2, 2)(there),
    "a solver that CUDA has not": lambda there, here: torch.linalg.lstsq(there, there, driver="gelsd"),
}


@pytest.mark.parametrize("what", MIXED)
def test_what_is_on_two_devices_is_refused(what: str) -> None:
    here = torch.ones(2, 2)
    with pytest.raises(RuntimeError, match=r"two devices|on CUDA"):
        MIXED[what](here.to(GPU), here)


def test_what_cuda_takes_is_taken() -> None:
    """Numbers of the CPU, indices of the CPU, copies between devices."""
    here = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    there = here.to(GPU)
    assert (there * torch.tensor(2.0)).device == GPU
    assert there[torch.tensor([1, 0])].device == GPU
    written = torch.zeros(2, 2, device=GPU)
    written[:, torch.tensor([1])] = there[:, :1]
    assert torch.equal(written.cpu(), torch.tensor([[0.0, 1.0], [0.0, 3.0]]))
    assert torch.equal(torch.zeros(2, 2).copy_(there), here)
    assert isinstance(there.new_zeros(3), GpuTensor) and float(there.sum()) == 10


def test_a_layer_trains_there_as_here() -> None:
    """Forward, backward, a step and statistics: the same numbers."""
    torch.manual_seed(0)
    here = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2))
    there = copy.deepcopy(here).to(GPU)
    images = torch.randn(4, 2, 5, 5)
    for model, given in ((here, images), (there, images.to(GPU))):
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        model(given).square().mean().backward()
        optimizer.step()
    assert all(isinstance(value, GpuTensor) for value in there.state_dict().values())
    for name, value in there.cpu().state_dict().items():
        assert torch.equal(value, here.state_dict()[name]), name
