from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.doubles.gpu import GPU, gpu
from trt_layermerge.errors import ExitCode, RuntimeNotAvailableError, UsageError
from trt_layermerge.network.device import CPU, device_named, device_of, moved, placed
from trt_layermerge.network.trace import normal_form


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine on which torch sees two."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return monkeypatch


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("name", "device"), [("auto", "cuda"), ("cpu", "cpu"), ("cuda", "cuda"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")]
)
def test_a_device_by_its_name(name: str, device: str) -> None:
    assert device_named(name) == torch.device(device)


def test_what_is_not_here_is_told(gpus: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeNotAvailableError, match=r"cuda:2 is not here: .* sees 2 GPUs"):
        device_named("cuda:2")
    gpus.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto") == device_named("cpu") == CPU
    with pytest.raises(RuntimeNotAvailableError, match=r"device cuda is not here: .* sees no GPU\n") as caught:
        device_named("cuda")
    assert caught.value.exit_code is ExitCode.NOT_AVAILABLE


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "meta", "", "auto "])
def test_what_is_no_device_is_a_matter_of_usage(name: str) -> None:
    with pytest.raises(UsageError, match="there is no device"):
        device_named(name)


def test_a_model_without_tensors_is_on_the_cpu() -> None:
    assert device_of(nn.ReLU()) == CPU
    assert device_of(nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert device_of(nn.BatchNorm2d(1, affine=False, device="meta")) == torch.device("meta")


def test_a_model_comes_back_whatever_happens() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with gpu(), pytest.raises(KeyboardInterrupt), placed(model, GPU):
        assert {value.device for value in model.state_dict().values()} == {GPU}
        raise KeyboardInterrupt
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(type(parameter) is nn.Parameter for parameter in model.parameters())


def test_a_gpu_without_memory_left_is_told_in_one_message() -> None:
    told = pytest.raises(RuntimeNotAvailableError, match=r"too little memory .*Tried to allocate 20 GiB")
    with told as caught, placed(nn.Linear(1, 1), CPU):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nGPU 0 has ...")
    assert "--device cpu" in str(caught.value)


def rounding() -> tuple[str, bool]:
    return torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.allow_tf32


@pytest.fixture
def own(request: pytest.FixtureRequest) -> Iterator[str]:
    """What a user has set for convolutions alone, which torch's older setting knows nothing of."""
    torch.backends.cudnn.conv.fp32_precision = request.param
    yield request.param
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("own", ["tf32", "ieee"], indirect=True)
def test_convolutions_are_rounded_by_nothing_but_training(own: str) -> None:
    """Whatever torch's own setting is; it is that again after. Reading its older one works inside."""
    model = nn.Linear(1, 1)
    with placed(model, CPU, rounding=True):
        assert torch.backends.cudnn.conv.fp32_precision == own
    with pytest.raises(KeyboardInterrupt), placed(model, CPU):
        assert rounding() == ("ieee", False)
        with placed(model, CPU, rounding=True):
            assert rounding() == ("ieee", False), "a training that is part of a measurement"
        raise KeyboardInterrupt
    assert torch.backends.cudnn.conv.fp32_precision == own


class Angles(nn.Module):
    """Makes numbers of its own, on the device of what it is given, as U-Nets do of time steps."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(4.0, device=x.device)
        return self.linear(x * steps + torch.zeros(x.shape[0], 1, device=x.device))


def test_numbers_that_a_graph_makes_are_made_where_it_is() -> None:
    """``torch.export`` has written down the device on which it has traced."""
    module, x = normal_form(Angles(), (4,)), torch.randn(3, 4)
    expected, code = module(x), str(module.graph)
    with gpu():
        with placed(module, GPU):
            (there,) = moved(x, GPU)
            assert torch.equal(module(there).cpu(), expected)
        assert torch.equal(module(x), expected) and str(module.graph) == code
