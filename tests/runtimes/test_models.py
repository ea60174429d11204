from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trt_layermerge.errors import ModelError
from trt_layermerge.runtimes.models import inferred, output_shapes, shape_ranges, shapes_of, with_shapes
from trt_layermerge.testing.runtimes import small_model


def test_a_batch_has_a_range() -> None:
    assert shape_ranges({"x": (4, 3)}, None) == {"x": ((4, 3), (4, 3), (4, 3))}
    assert shape_ranges({"x": (4, 3)}, (1, 8)) == {"x": ((1, 3), (4, 3), (8, 3))}
    with pytest.raises(ModelError, match="batch 4 is not in the range"):
        shape_ranges({"x": (4, 3)}, (5, 8))


def test_an_open_dimension_is_0_until_it_is_fixed() -> None:
    assert shapes_of(small_model("batch").graph.input) == {"x": (0, 3, 8, 8)}
    assert shapes_of(with_shapes(small_model("batch"), {"x": (2, 3, 8, 8)}).graph.input) == {"x": (2, 3, 8, 8)}


def _model(nodes: list[onnx.NodeProto], **constants: object) -> onnx.ModelProto:
    held = [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], held),
        opset_imports=[helper.make_opsetid(domain, 18) for domain in ("", "of")],
        ir_version=10,
    )


def test_shapes_that_are_computed_from_sizes_are_known() -> None:
    """As of a grid that is repeated for each sample, and of windows that are gathered."""
    nodes = [
        helper.make_node("Shape", ["x"], ["size"], start=0, end=1),
        helper.make_node("Concat", ["size", "ones"], ["times"], axis=0),
        helper.make_node("Tile", ["grid", "times"], ["tiled"]),
        helper.make_node("Shape", ["x"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "three"], ["width"]),
        helper.make_node("Range", ["zero", "width", "one"], ["columns"]),
        helper.make_node("Gather", ["tiled", "columns"], ["gathered"], axis=3),
        helper.make_node("Concat", ["x", "gathered"], ["y"], axis=1),
    ]
    model = _model(nodes, ones=[1, 1, 1], grid=np.zeros((1, 2, 8, 8), np.float32), three=3, zero=0, one=1)
    assert shapes_of(inferred(model).graph.value_info)["gathered"] == (2, 2, 8, 8)
    assert output_shapes(model) == {"y": (2, 5, 8, 8)}


def test_the_shape_of_what_nobody_knows_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="output 'y' cannot be known"):
        output_shapes(_model([helper.make_node("Unheard", ["x"], ["y"], domain="of")]))
    assert not list(tmp_path.iterdir())  # onnxruntime's own function leaves the model there
