"""Manifests of finished jobs, as deliveries of old hold them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trt_layermerge.delivery.manifest import Manifest, read_manifest

ASSETS = Path(__file__).parents[1] / "delivery" / "assets"


@pytest.fixture
def manifest() -> Manifest:
    return read_manifest(ASSETS / "manifest-v1.json")


@pytest.fixture
def fp16() -> Manifest:
    """Of a conversion with a layer that stays in FP32."""
    return read_manifest(ASSETS / "manifest-v2.json")
