from __future__ import annotations

import pytest

from trt_layermerge.errors import ModelError
from trt_layermerge.runtimes.models import shape_ranges, shapes_of, with_shapes
from trt_layermerge.testing.runtimes import small_model


def test_a_batch_has_a_range() -> None:
    assert shape_ranges({"x": (4, 3)}, None) == {"x": ((4, 3), (4, 3), (4, 3))}
    assert shape_ranges({"x": (4, 3)}, (1, 8)) == {"x": ((1, 3), (4, 3), (8, 3))}
    with pytest.raises(ModelError, match="batch 4 is not in the range"):
        shape_ranges({"x": (4, 3)}, (5, 8))


def test_an_open_dimension_is_0_until_it_is_fixed() -> None:
    assert shapes_of(small_model("batch").graph.input) == {"x": (0, 3, 8, 8)}
    assert shapes_of(with_shapes(small_model("batch"), {"x": (2, 3, 8, 8)}).graph.input) == {"x": (2, 3, 8, 8)}
