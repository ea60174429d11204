from __future__ import annotations

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.latency.standard_table import standard_signatures


def test_forty_signatures_each_once_and_of_the_precision() -> None:
    for precision in ("fp32", "fp16", "int8"):
        found = standard_signatures(precision)
        assert len(set(found)) == len(found) == 40
        assert {signature.precision for signature in found} == {precision}
        assert all(Signature.parse(signature.key) == signature for signature in found)
