from __future__ import annotations

import math
from dataclasses import replace

from tests.planning.methods.measured import ALL, GONE, KEEP, values
from trt_layermerge.planning.methods.layer_only import LayerOnly


def test_it_keeps_or_drops_single_layers() -> None:
    pair = replace(GONE, key="pair", start=0, end=2)
    problem = LayerOnly().problem([2], [*ALL, pair, replace(KEEP, key="next", start=1, end=2)], 0, 10)
    assert values(problem) == {"keep": 1.0, "gone": math.exp(-2.0), "next": 1.0}
