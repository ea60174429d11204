"""A double of a GPU: tensors that compute on the CPU, and say that they are elsewhere.

NOTHING OF THIS RUNS ON A GPU. What it shows is that no tensor is left behind: as torch does with CUDA, it refuses to
compute with tensors of two devices. It says nothing of a GPU's own kernels, rounding, memory or speed.

The second device is called ``lazy``: of those that torch knows by name, one of the two that its autograd works with
though nothing implements them. What is tested passes devices on, and must not care what they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("lazy:0")

_aten = torch.ops.aten
_BETWEEN = {_aten._to_copy.default, _aten.copy_.default}
_INDEXING = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}


class GpuTensor(Tensor):
    """A tensor of the second device.

    Attributes:
        inner: Its values, on the CPU.
    """

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> GpuTensor:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=GPU, **layout)
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:
        return f"GpuTensor({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(operator, args, kwargs or {})


class _Present(TorchDispatchMode):
    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # what operators are made of, in inference mode, is looked at, too
            made = operator.decompose(*args, **(kwargs or {}))
        return _call(operator, args, kwargs or {}) if made is NotImplemented else made


@contextmanager
def gpu() -> Iterator[torch.device]:
    """Inside, the device is here: ``.to(GPU)`` and whatever makes tensors on it works.

    Autocast knows real devices only, and does nothing on this one. Modules get new parameters when they are converted:
    to put others into those that they have is beyond a double. Load networks outside: ``torch.export`` cannot in here.
    """
    overwriting = torch.__future__.get_overwrite_module_params_on_conversion()
    real: Callable[..., Any] = torch.autocast

    def autocast(kind: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if kind == GPU.type else real(kind, *args, **kwargs)

    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with mock.patch.object(torch, "autocast", autocast), _Present():
            yield GPU
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwriting)


def _call(operator: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU what torch with CUDA would compute at all, and say where the result is."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    _require_one_device(operator, args, tensors)
    if operator is _aten.linalg_lstsq.default and _on_gpu(args[0]) and kwargs.get("driver") not in ("gels", None):
        raise RuntimeError("torch.linalg.lstsq: on CUDA, `driver` must be 'gels'")
    wanted = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)]
    there = any(device.type == GPU.type for device in wanted) if wanted else any(map(_on_gpu, tensors))
    draws = there and torch.Tag.nondeterministic_seeded in operator.tags
    with _own_generator() if draws else nullcontext():
        found = operator(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if _writes(operator):
        return kwargs.get("out", next(iter(args), None))
    return tree_map(lambda leaf: GpuTensor(leaf) if there and isinstance(leaf, Tensor) else leaf, found)


@contextmanager
def _own_generator() -> Iterator[None]:
    """A GPU draws from a generator of its own: other numbers than the CPU."""
    with torch.random.fork_rng([]):
        torch.manual_seed(torch.initial_seed() + 1)
        yield


def _require_one_device(operator: Any, args: Any, tensors: list[Tensor]) -> None:
    """Refuse what torch refuses with CUDA: numbers (no dimensions) of the CPU go with anything, and so do its indices.

    Raises:
        RuntimeError: In torch's words.
    """
    if operator in _BETWEEN:
        return
    if operator in _INDEXING and _on_gpu(args[0]):
        indices = [index for index in args[1] if index is not None]
        tensors = [tensor for tensor in tensors if not any(tensor is index for index in indices)]
    if len({tensor.device for tensor in tensors if tensor.dim() or _on_gpu(tensor)}) > 1:
        raise RuntimeError(
            f"{operator}: expected all tensors to be on the same device, but found at least two devices, {GPU} and cpu!"
        )


def _writes(operator: Any) -> bool:
    """Whether an operator returns what it has written in place."""
    return any(result.alias_info is not None and result.alias_info.is_write for result in operator._schema.returns)


def _on_gpu(value: Any) -> bool:
    return isinstance(value, GpuTensor)


def _inner(value: Any) -> Any:
    """What it is on the CPU: of a tensor its values, of the device the CPU."""
    if isinstance(value, torch.device) and value.type == GPU.type:
        return torch.device("cpu")
    return value.inner if isinstance(value, GpuTensor) else value
