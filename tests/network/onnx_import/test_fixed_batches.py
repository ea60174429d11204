"""Files whose weights or reshapes hold a batch size: any number of samples goes through, each by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from tests.network.onnx_import.models import imported, make, runtime
from trt_layermerge.errors import ModelError
from trt_layermerge.network.network import load_network, trace

KERNEL = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
node = helper.make_node

FIXED = {
    "flattened": [node("Reshape", ["c", "one, rest"], ["y"])],
    "written out": [node("Reshape", ["c", "one, 192"], ["y"])],
    "groups": [node("Reshape", ["c", "shuffle"], ["s"]), node("Reshape", ["s", "one, rest"], ["y"])],
    "expanded": [node("GlobalAveragePool", ["c"], ["g"]), node("Expand", ["g", "image"], ["y"])],
}
TARGETS = {"one, rest": [1, -1], "one, 192": [1, 192], "shuffle": [1, 2, -1, 6, 8], "image": [1, 4, 6, 8]}


@pytest.mark.parametrize("tail", FIXED.values(), ids=FIXED.keys())
def test_a_file_for_one_image_takes_any_number(tail: list[onnx.NodeProto], tmp_path: Path) -> None:
    weights = {name: np.array(value, np.int64) for name, value in TARGETS.items()}
    conv = node("Conv", ["x", "w"], ["c"])
    model = make([conv, *tail], {**weights, "w": KERNEL}, shape=(1, 3, 8, 10))
    onnx.save(model, tmp_path / "one.onnx")
    network = load_network(str(tmp_path / "one.onnx"))
    x = torch.randn(5, 3, 8, 10)
    with torch.no_grad():
        result = network.module(x)
    for index, image in enumerate(x):
        np.testing.assert_allclose(result[index : index + 1], runtime(model, image[None].numpy()), rtol=1e-5, atol=1e-5)


def test_a_file_that_mixes_the_samples_of_a_batch_is_refused(tmp_path: Path) -> None:
    tail = [node("Softmax", ["c"], ["y"], axis=0)]
    onnx.save(make([node("Conv", ["x", "w"], ["c"]), *tail], {"w": KERNEL}), tmp_path / "mixed.onnx")
    with pytest.raises(ModelError, match="does not compute each sample of a batch by itself"):
        load_network(str(tmp_path / "mixed.onnx"))


@pytest.mark.parametrize("batch", [1, 2])
def test_frames_of_a_file_of_a_fixed_batch_are_any_number_of_samples(batch: int) -> None:
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((4, 1, 3, 3)).astype(np.float32),
        "frames": np.array([3 * batch, 1, 8, 10]),
        "samples": np.array([batch, 12, 6, 8]),
    }
    nodes = [
        node("Reshape", ["x", "frames"], ["f"]),
        node("Conv", ["f", "w"], ["c"]),
        node("Reshape", ["c", "samples"], ["y"]),
    ]
    model = make(nodes, weights, (batch, 3, 8, 10))
    network = trace("net", imported(model), (3, 8, 10))
    x = random.standard_normal((batch, 3, 8, 10)).astype(np.float32)
    with torch.no_grad():
        result = network.module(torch.from_numpy(np.concatenate([x, x])))
    np.testing.assert_allclose(result.numpy(), np.concatenate([runtime(model, x)] * 2), rtol=1e-4, atol=1e-5)
    assert [chain.multiple for chain in network.chains] == [3]
