"""Strided 1x1 convolutions, computed in a form whose gradient torch gets right on every CPU.

oneDNN, which computes torch's convolutions on x86, has a fault (https://github.com/uxlfoundation/oneDNN/issues/6035):
the gradient of the weights of a strided 1x1 convolution of few channels, in channels-last layout, is written past the
end of a workspace. That ends in a crash, or in wrong numbers without a word. Merges make such convolutions, and so do
people.

A 1x1 convolution never sees the pixels that its stride leaves out. Without them, and without the stride, it is the same
convolution, and another kernel of oneDNN's. Decision 26 says what was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

VECTOR = 16
"""Channels from which on the workspace is large enough: the floats of the widest vector, that of AVX-512.

With AVX2 it is 8, and images of some ten pixels are enough; with AVX-512 it takes some thousand.
"""

_aten = torch.ops.aten

Numbers = int | Sequence[int]


class Unstrided(TorchFunctionMode):
    """While inside, every convolution that the fault could meet is computed without its stride, whoever calls it.

    Gradients may be computed outside: what was called in here decides how. Same values, on any device.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Call ``func``, or the form of it that is safe."""
        form, kwargs = _FORMS.get(func), kwargs or {}
        safe = None if form is None else form(func, *args, **kwargs)
        return func(*args, **kwargs) if safe is None else safe


def _convolution(
    convolve: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers | str = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor | None:
    """The convolution of what its stride leaves; ``None`` where the fault is not met."""
    if groups > 1 or not _affected(weight, stride, padding):
        return None
    seen: list[Any] = [slice(None, None, step) for step in _each(stride, weight)]
    return convolve(input[(..., *seen)], weight, bias)


def _transposed(
    convolve: Callable[..., Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor | None:
    """One whose last stride is cut short, which that kernel does not take, and the rest of it; ``None`` likewise."""
    if groups > 1 or not _affected(weight, stride, padding):
        return None
    behind = [size for more in reversed(_each(output_padding, weight)) for size in (0, more)]
    y = F.pad(convolve(input, weight, None, _each(stride, weight)), behind)
    return y if bias is None else y + bias.view(-1, *[1] * (weight.dim() - 2))


def _affected(weight: Tensor, stride: Numbers, padding: Numbers | str) -> bool:
    """Whether it is 1x1 and strided, without padding, and of few channels on the side that has more pixels."""
    return (
        weight.shape[1] < VECTOR
        and all(size == 1 for size in weight.shape[2:])
        and any(step > 1 for step in _each(stride, weight))
        and (padding == "valid" if isinstance(padding, str) else not any(_each(padding, weight)))
    )


def _each(value: Numbers, weight: Tensor) -> tuple[int, ...]:
    """One number for each axis of an image."""
    axes = weight.dim() - 2
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


_FORMS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d), _convolution),
    **dict.fromkeys((_aten.conv1d.default, _aten.conv1d.padding), _convolution),
    **dict.fromkeys((_aten.conv2d.default, _aten.conv2d.padding), _convolution),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d), _transposed),
    **dict.fromkeys((_aten.conv_transpose1d.default, _aten.conv_transpose2d.input), _transposed),
}
"""Torch's functions, as modules and as traced graphs call them; oneDNN has no such kernel for volumes."""
