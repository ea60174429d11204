from __future__ import annotations

import pytest

from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.runtimes.registry import require_runtime


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        require_runtime("tensorrt")
    except RuntimeNotAvailableError as error:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=error.message))
