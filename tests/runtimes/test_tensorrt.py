"""TensorRT's runtime on the double."""

from __future__ import annotations

import pytest

from tests.doubles.fixtures import Tell, doubles  # noqa: F401
from tests.runtimes.conformance import RuntimeConformance
from trt_layermerge.runtimes.protocol import Runtime
from trt_layermerge.runtimes.registry import get_runtime


class TestTensorRT(RuntimeConformance):
    @pytest.fixture
    def runtime(self, doubles: Tell) -> Runtime:  # noqa: F811
        return get_runtime("tensorrt")
