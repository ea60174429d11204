"""Gradients of kernels, computed beside those of images.

A convolution's backward pass is two of about the same length. All layers before it wait for the gradient of its input;
nothing waits for that of its kernel until the optimiser's step. Where there is a thread beside, which has been idle
since the teacher was done, it computes the second one: the same calls of the same kernels, and so the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

_aten = torch.ops.aten

_CONVOLUTIONS = (torch.conv2d, _aten.conv2d.default)
"""As modules and as traced graphs call them."""

Pending = list[tuple[Tensor, Future[Tensor]]]
"""Kernels, and their gradients as soon as these are there."""


@contextmanager
def kernel_gradients(model: nn.Module, beside: ThreadPoolExecutor | None) -> Iterator[None]:
    """Inside, forward and backward passes leave gradients of kernels to a thread; at the end, they have been added.

    Only kernels that are parameters themselves, of convolutions of images without a bias, and that nobody has hooks on.

    Args:
        model: Whose kernels. A loss may have networks of its own, and differentiate them twice, or under ``vmap``.
        beside: The thread; without one, nothing changes.
    """
    if beside is None:
        yield
        return
    pending: Pending = []
    with _Split(set(model.parameters()), beside, pending):
        yield
    for kernel, gradient in pending:
        added = gradient.result()
        kernel.grad = added if kernel.grad is None else kernel.grad + added


class _Split(TorchFunctionMode):
    """Calls convolutions so that the two parts of their backward pass are computed apart."""

    def __init__(self, kernels: Collection[Tensor], worker: ThreadPoolExecutor, pending: Pending) -> None:
        super().__init__()
        self._kernels, self._worker, self._pending = kernels, worker, pending

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = self._convolution(*args, **kwargs) if func in _CONVOLUTIONS else None
        return func(*args, **kwargs) if result is None else result

    def _convolution(
        self, input: Tensor, weight: Tensor, bias: Tensor | None = None, *others: Any, **named: Any
    ) -> Tensor | None:
        """The convolution; ``None`` where its backward pass is autograd's."""
        if weight not in self._kernels or bias is not None or input.dim() != weight.dim():
            return None
        hooked = weight._backward_hooks or weight._post_accumulate_grad_hooks
        if hooked or not (weight.requires_grad and torch.is_grad_enabled()):
            return None
        how = dict(zip(("stride", "padding", "dilation", "groups"), others, strict=False)) | named
        if isinstance(how.get("padding"), str):
            return None
        device = input.device.type
        if torch.is_autocast_enabled(device):
            if torch.float64 in (input.dtype, weight.dtype):
                return None  # autocast leaves it as it is
            input = input.to(torch.get_autocast_dtype(device))
        elif input.dtype != weight.dtype:
            return None  # which torch refuses, in its words
        result: Tensor = _Convolution.apply(input, weight, how, self._worker, self._pending)
        return result


class _Convolution(torch.autograd.Function):
    """A convolution whose kernel's gradient is not autograd's."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, how: dict[str, Any], worker: ThreadPoolExecutor, pending: Pending
    ) -> Tensor:
        kernel = weight.to(input.dtype)
        ctx.save_for_backward(input, kernel)
        ctx.weight, ctx.how, ctx.worker, ctx.pending = weight, how, worker, pending
        return torch.conv2d(input, kernel, None, **how)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (input, kernel) = gradients, ctx.saved_tensors
        stride, padding, dilation = (
            _both(ctx.how.get(*one)) for one in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        how = (stride, padding, dilation, False, [0, 0], ctx.how.get("groups", 1))

        def part(*mask: bool) -> tuple[Tensor, ...]:
            with torch.no_grad():  # of the thread that this is called in
                found: tuple[Tensor, ...] = _aten.convolution_backward(gradient, input, kernel, None, *how, mask)
            return found

        weight = ctx.weight
        ctx.pending.append((weight, ctx.worker.submit(lambda: part(False, True, False)[1].to(weight.dtype))))
        of_input = part(True, False, False)[0] if ctx.needs_input_grad[0] else None
        return of_input, None, None, None, None


def _both(value: int | Sequence[int]) -> list[int]:
    """One number for each axis."""
    return [value, value] if isinstance(value, int) else [*value] * (3 - len(value))
