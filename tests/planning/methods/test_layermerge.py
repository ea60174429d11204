from __future__ import annotations

import math

from tests.planning.methods.measured import ALL, values
from trt_layermerge.planning.methods.layermerge import LayerMerge


def test_it_knows_no_fits_drops_only_reducible_blocks_and_takes_the_exponential() -> None:
    problem = LayerMerge().problem([1], ALL, fixed_ns=0, original_ns=10)
    assert values(problem) == {"keep": 1.0, "merge": math.exp(-0.25), "gone": math.exp(-2.0)}
