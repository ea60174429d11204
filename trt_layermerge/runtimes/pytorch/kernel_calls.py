"""A network as the calls of PyTorch's kernels that a run of it makes, with its inputs in place and its shapes fixed.

Recorded once by torch's own tracer, so that nothing but calls is left to time: sizes were computed, modules looked up
and axes sorted while it recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from trt_layermerge.network.exporting import hushed
from trt_layermerge.network.onnx_import.onnx_network import OnnxNetwork
from trt_layermerge.network.tf32 import tf32
from trt_layermerge.onnxfile import inputs_of
from trt_layermerge.runtimes.base import UNKNOWN_PRECISION, Array, BuildOptions
from trt_layermerge.runtimes.nvidia.compiler_settings import GpuSettings

_PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16"}
_CONVOLUTION, _CLONE = torch.ops.aten.convolution.default, torch.ops.aten.clone.default


def layout_of(place: torch.device, options: BuildOptions, settings: GpuSettings) -> torch.memory_format:
    """How images lie in memory: channels-last but for float32 on a GPU.

    There the fast kernels are those of tensor cores, which take channels-last; the others are faster without. On an
    H200 dense convolutions in float32 took 4 to 75 % longer in channels-last, and with TF32 up to 41 % less.
    """
    if place.type == "cpu" or options.precision == "fp16":
        return torch.channels_last
    has_tf32 = torch.cuda.get_device_capability(place) >= (8, 0)
    return torch.channels_last if settings.tf32 and has_tf32 else torch.contiguous_format


class KernelCalls:
    """What a run executes, on one device.

    Attributes:
        feeds: Seeded random inputs by name, ``[batch, ...]`` each, on the device.
        output_names: In order.
        place: The device.
    """

    def __init__(
        self,
        network: OnnxNetwork,
        model: onnx.ModelProto,
        place: torch.device,
        options: BuildOptions,
        settings: GpuSettings,
    ) -> None:
        """Run a network once and record it.

        Args:
            network: On the device, without gradients; its kernels are laid out as images are.
            model: Its ONNX form, with fixed shapes.
            place: The device.
            options: Of the engine; ``isolated`` leaves out the changes of layout at both ends.
            settings: Of the GPU.

        Raises:
            RuntimeError: It does not run.
        """
        self.place, self._threads, self._tf32 = place, options.threads, settings.tf32
        self._amid, self._layout = options.isolated, layout_of(place, options, settings)
        self.output_names = network.output_names
        for parameter in network.parameters():
            parameter.data = self._laid_out(parameter.data)
        self.feeds = {name: self.placed(array) for name, array in _random_feeds(model).items()}

        def whole(*given: Tensor) -> tuple[Tensor, ...]:
            if options.isolated:
                return network.computed(*given)
            return tuple(one.contiguous() for one in network.computed(*map(self._laid_out, given)))

        with hushed(), torch.no_grad(), self.computing():
            self._calls: fx.GraphModule = make_fx(whole)(*self.feeds.values())
        self.outputs = self.run(self.feeds)

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs, by name."""
        with self.computing():
            return dict(zip(self.output_names, self.enqueue(*(inputs[name] for name in self.feeds)), strict=True))

    def enqueue(self, *given: Tensor) -> tuple[Tensor, ...]:
        """One run, within ``computing``; on a GPU it is queued on the current stream."""
        results: tuple[Tensor, ...] = self._calls(*given)
        return results

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute as these calls are to be run: threads, cuDNN, no gradients; as it was, after."""
        threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
        flags = cudnn.enabled, cudnn.benchmark, cudnn.deterministic
        try:
            if threads != self._threads:
                torch.set_num_threads(self._threads)
            cudnn.enabled, cudnn.benchmark, cudnn.deterministic = True, True, False
            with tf32(self._tf32), torch.inference_mode():
                yield
        finally:
            cudnn.enabled, cudnn.benchmark, cudnn.deterministic = flags
            if threads != self._threads:
                torch.set_num_threads(threads)

    def placed(self, array: Array) -> Tensor:
        """An input on the device, in the layout in which a run takes it."""
        values = torch.from_numpy(np.array(array, order="C")).to(self.place)
        return self._laid_out(values) if self._amid else values

    def convolution_precisions(self) -> frozenset[str]:
        """What convolutions are computed in: the types of their kernels."""
        kinds = {self._value(node.args[1]).dtype for node in self._nodes(_CONVOLUTION)}
        return frozenset(_PRECISIONS.get(kind, UNKNOWN_PRECISION) for kind in kinds)

    def copies(self) -> tuple[str, ...]:
        """Names of the calls that only bring a tensor into another layout."""
        return tuple(node.name for node in self._nodes(_CLONE))

    def _laid_out(self, values: Tensor) -> Tensor:
        return values.contiguous(memory_format=self._layout) if values.ndim == 4 else values

    def _nodes(self, target: Any) -> Iterator[fx.Node]:
        return (node for node in self._calls.graph.nodes if node.target is target)

    def _value(self, argument: Any) -> Tensor:
        """What a call was given when it was recorded."""
        value = argument.meta.get("val") if argument.op != "get_attr" else getattr(self._calls, argument.target)
        assert isinstance(value, Tensor)
        return value


def _random_feeds(model: onnx.ModelProto) -> dict[str, Array]:
    """Floats as activations are; whole numbers that are an index of anything."""
    generator, feeds = np.random.default_rng(0), {}
    for name, value in inputs_of(model.graph).items():
        tensor = value.type.tensor_type
        shape, dtype = [size.dim_value for size in tensor.shape.dim], helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        drawn = generator.standard_normal(shape) if np.issubdtype(dtype, np.floating) else np.zeros(shape)
        feeds[name] = drawn.astype(dtype)
    return feeds
