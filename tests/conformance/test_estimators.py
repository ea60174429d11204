"""Every estimator there is passes the suite that is shipped for those to come, and so does the one in the docs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trt_layermerge.importance.estimators.base import Estimator
from trt_layermerge.importance.estimators.registry import estimators
from trt_layermerge.testing.estimators import EstimatorConformance

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
QUICK: dict[str, dict[str, Any]] = {"finetune": {"share": 0.3, "lr": 0.05}}


class TestEstimators(EstimatorConformance):
    @pytest.fixture(params=estimators())
    def estimator(self, request: pytest.FixtureRequest) -> Estimator:
        return estimators()[request.param](**QUICK.get(request.param, {}))


class TestTheExample(EstimatorConformance):
    @pytest.fixture
    def kind(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
        (source,) = (block for block in blocks if "(Estimator):" in block)
        module = ModuleType("magnitude")
        monkeypatch.setitem(sys.modules, "magnitude", module)  # dataclasses look themselves up there
        exec(compile(source, str(PAGE), "exec"), module.__dict__)
        return module.Magnitude

    @pytest.fixture
    def estimator(self, kind: Any) -> Any:
        return kind(scale=2.0)
