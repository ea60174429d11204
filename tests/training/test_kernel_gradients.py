"""Gradients of kernels that are computed beside those of images are autograd's own, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.resources.threads import workers
from trt_layermerge.training.kernel_gradients import kernel_gradients
from trt_layermerge.training.strides import Unstrided


@pytest.fixture(scope="module")
def worker() -> Iterator[ThreadPoolExecutor]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with workers(1) as beside:
        yield beside
    torch.set_num_threads(threads)


def gradients(model: nn.Module, x: Tensor, beside: ThreadPoolExecutor | None, precision: str = "fp32") -> list[Tensor]:
    x = x.clone().requires_grad_()
    model.zero_grad()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    for _ in range(2):  # they add up
        with kernel_gradients(model, beside):
            with Unstrided(), torch.autocast("cpu", dtype, enabled=precision != "fp32"):
                y = model(x)
            y.float().square().mean().backward()
    assert x.grad is not None
    found = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    return [x.grad, *(gradient for gradient in found if gradient is not None)]


class Counted:
    """A thread beside, and how often it was asked."""

    def __init__(self, worker: ThreadPoolExecutor) -> None:
        self.worker, self.asked = worker, 0

    def submit(self, *args: object) -> object:
        self.asked += 1
        return self.worker.submit(*args)  # type: ignore[arg-type]


@pytest.mark.parametrize("kernel", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("image", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mixed", [False, True])
def test_other_types_are_computed_or_refused_as_torch_does(
    worker: ThreadPoolExecutor, kernel: torch.dtype, image: torch.dtype, mixed: bool
) -> None:
    torch.manual_seed(0)
    model, x = nn.Conv2d(2, 2, 3, bias=False).to(kernel), torch.randn(2, 2, 5, 5).to(image)
    found: list[list[Tensor] | str] = []
    for beside in (None, worker):
        try:
            found.append(gradients(model, x, beside, "bf16" if mixed else "fp32"))
        except RuntimeError as error:
            found.append(str(error))
    alone, split = found
    if isinstance(alone, str) or isinstance(split, str):
        assert alone == split
    else:
        assert all(map(torch.equal, alone, split)) and [one.dtype for one in alone] == [one.dtype for one in split]


@given(
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    groups=st.sampled_from([1, 2]),
    last=st.booleans(),
    precision=st.sampled_from(["fp32", "bf16"]),
)
def test_they_are_autograds_own(
    worker: ThreadPoolExecutor, kernel: int, stride: int, padding: int, groups: int, last: bool, precision: str
) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 6, kernel, stride, padding, groups=groups, bias=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), convolution, nn.BatchNorm2d(6))
    x = torch.randn(5, 3, 9, 8)
    if last:
        x, model = x.contiguous(memory_format=torch.channels_last), model.to(memory_format=torch.channels_last)
    expected = gradients(model, x, None, precision)
    beside = Counted(worker)
    found = gradients(model, x, beside, precision)  # type: ignore[arg-type]
    assert beside.asked == 4
    assert len(found) == len(expected)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


class Tied(nn.Module):
    """One kernel, called twice, and looked at beside that."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(3, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(F.conv2d(x, self.kernel, padding=1), self.kernel, padding=(1, 1))
        return y + self.kernel.square().sum()


def test_a_kernel_may_be_used_several_times(worker: ThreadPoolExecutor) -> None:
    torch.manual_seed(0)
    model, x = Tied(), torch.randn(2, 3, 6, 6)
    expected = gradients(model, x, None)
    assert all(map(torch.allclose, gradients(model, x, worker), expected))


def _hooked(conv: nn.Conv2d) -> None:
    conv.weight.register_hook(lambda gradient: 2 * gradient)


def _seen(conv: nn.Conv2d) -> None:
    conv.weight.register_post_accumulate_grad_hook(lambda weight: None)


def _frozen(conv: nn.Conv2d) -> None:
    conv.weight.requires_grad_(False)


def _computed(conv: nn.Conv2d) -> None:
    nn.utils.parametrizations.weight_norm(conv)


def _padded_in_words(conv: nn.Conv2d) -> None:
    conv.padding = "same"


@pytest.mark.parametrize("change", [_hooked, _seen, _frozen, _computed, _padded_in_words])
def test_what_is_no_plain_parameter_is_left_to_autograd(worker: ThreadPoolExecutor, change: object) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, bias=False)
    change(conv)  # type: ignore[operator]
    beside, x = Counted(worker), torch.randn(2, 3, 6, 6)
    expected = gradients(conv, x, None)
    found = gradients(conv, x, beside)  # type: ignore[arg-type]
    assert beside.asked == 0
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


class Penalised(nn.Module):
    """A network, and a loss that has one of its own, looks at the gradient of that, and at single images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.critic = nn.Conv2d(3, 4, 3, bias=False), [nn.Conv2d(4, 2, 3, bias=False)]

    def forward(self, x: Tensor) -> Tensor:
        (critic,), y = self.critic, self.conv(x)
        (slope,) = torch.autograd.grad(critic(y).square().sum(), y, create_graph=True)
        return slope.square().mean() + torch.vmap(critic)(y[None]).mean() + self.conv(x[0]).mean()


def test_a_loss_may_differentiate_networks_of_its_own_twice(worker: ThreadPoolExecutor) -> None:
    torch.manual_seed(0)
    model, x = Penalised(), torch.randn(2, 3, 8, 8)
    expected = gradients(model, x, None)
    assert all(map(torch.allclose, gradients(model, x, worker), expected))


def test_an_error_beside_is_told(worker: ThreadPoolExecutor) -> None:
    class Broken(Counted):
        def submit(self, *args: object) -> object:
            def fail() -> Tensor:
                raise RuntimeError("no memory")

            return self.worker.submit(fail)

    with pytest.raises(RuntimeError, match="no memory"):
        gradients(nn.Conv2d(3, 4, 3, bias=False), torch.randn(2, 3, 6, 6), Broken(worker))  # type: ignore[arg-type]
