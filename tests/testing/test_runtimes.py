"""The conformance suite sees what it is there for; that ours pass it is in ``tests/runtimes``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from trt_layermerge.runtimes.base import BuildOptions, Device, Engine, Model, Runtime, Shape
from trt_layermerge.runtimes.ort.ort_runtime import OnnxRuntime
from trt_layermerge.testing.runtimes import RuntimeConformance, small_model


class Ignoring(OnnxRuntime):
    """Does not heed ``isolated``."""

    def build(self, model: Model, options: BuildOptions, shapes: Mapping[str, Shape] | None = None) -> Engine:
        return super().build(model, replace(options, isolated=False), shapes)


class Mixing(OnnxRuntime):
    """Heeds it, and says of both that they were timed alike."""

    def describe(self, options: BuildOptions) -> Device:
        return super().describe(replace(options, isolated=False))


@pytest.mark.parametrize(("runtime", "words"), [(Ignoring, "is not heeded"), (Mixing, "would meet")])
def test_a_runtime_that_times_layout_conversions_fails(runtime: type[Runtime], words: str) -> None:
    wide = small_model(inputs=16, outputs=16)
    if not OnnxRuntime().build(wide, BuildOptions()).layout_conversions():
        pytest.skip("ONNX Runtime has no blocked layout on this CPU")
    with pytest.raises(AssertionError, match=words):
        RuntimeConformance().test_a_block_amid_a_network_meets_no_layout_conversion(runtime())
