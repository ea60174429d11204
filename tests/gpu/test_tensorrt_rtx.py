"""TensorRT-RTX on a real card. Written without one, as all tests here."""

from __future__ import annotations

import pytest

from trt_layermerge.runtimes.base import Runtime
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import RuntimeConformance

pytestmark = pytest.mark.gpu("tensorrt-rtx")


class TestConformance(RuntimeConformance):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return get_runtime("tensorrt-rtx")
