from __future__ import annotations

import pytest

from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import RuntimeConformance


class TestEstimateRuntime(RuntimeConformance):
    @pytest.fixture
    def runtime(self):
        return get_runtime("estimate:rtx-2080-ti")
