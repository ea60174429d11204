"""Manifests of finished jobs, as deliveries of old hold them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trt_layermerge.delivery.manifest import Manifest, read_manifest
from trt_layermerge.report.evidence import (
    BudgetRow,
    ChoiceRow,
    Command,
    Evidence,
    FrontierPoint,
    LayerRow,
    OperationRow,
)

ASSETS = Path(__file__).parents[1] / "delivery" / "assets"


@pytest.fixture
def manifest() -> Manifest:
    return read_manifest(ASSETS / "manifest-v1.json")


@pytest.fixture
def fp16() -> Manifest:
    """Of a conversion with a layer that stays in FP32."""
    return read_manifest(ASSETS / "manifest-v2.json")


@pytest.fixture
def evidence(manifest: Manifest) -> Evidence:
    """Tables that the plan of ``manifest`` may rest on: each of its blocks had layers of 6 us."""
    items = manifest.plan["items"]
    layers = [(item["chain"], index) for item in items for index in range(item["start"] + 1, item["end"] + 1)]
    return Evidence(
        layers=tuple(LayerRow(*layer, f"conv{layer[1]}", "3x3 convolution", 6000) for layer in layers),
        operations=tuple(
            OperationRow(f"fp32 n8 {n}x8x8 pass add", 900 * n, 1000 * n, 1200 * n, "ok", n % 2 == 0)
            for n in range(20, 0, -1)
        ),
        choices=(
            ChoiceRow("0:0-1 fit 1x1 g1", "fit", 4000, 0.25, True),
            ChoiceRow("0:1-2 identity", "identity", 6000, -0.01, False),
            ChoiceRow("0:0-2 merge 5x5 g1", "merge", -500, 3.0, False),
        ),
        frontier=(FrontierPoint(20_000, -1.0), FrontierPoint(44_644, 0.0), FrontierPoint(60_000, 0.25)),
        budgets=(BudgetRow("0.5", 44_644, 2.0, 0.0, 2), BudgetRow("0.23", 20_000, 4.4, -1.0, 3)),
        commands=(Command("trt-layermerge compress model.py", "makes it"),),
    )
