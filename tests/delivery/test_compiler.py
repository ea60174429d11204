"""What we deliver is compiled by NVIDIA's own compiler, TensorRT-RTX, each file in a process of its own.

For SM75; in INT8 for SM86, because INT8 convolutions for SM75 come out as floats and are refused. What a build returns
has convolutions in its precision: the runtime reads them off the plan.

Nothing runs: that takes the GPU. Larger networks are in ``benchmarks/compile.py``.
"""

from __future__ import annotations

import random
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import onnx
import pytest
import torch

from trt_layermerge.delivery.export import INPUT, export_onnx
from trt_layermerge.delivery.typed_onnx import Typed, write_typed
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.runtimes.base import PRECISIONS, BuildOptions
from trt_layermerge.runtimes.graph_precision import graph_precision
from trt_layermerge.runtimes.nvidia.rtx_plan import PlanKernel, kernels, read_header
from trt_layermerge.runtimes.registry import get_runtime

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "fashion_mnist"
BATCH = 8
NETWORKS = {
    "example": (f"{EXAMPLE / 'model.py'}:resnet20", EXAMPLE / "resnet20.safetensors"),
    "of the tests": (str(ROOT / "tests" / "pipeline" / "assets" / "model.py"), None),
}

needs_compiler = pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None,
    reason="TensorRT-RTX is not installed: pip install '.[tensorrt-rtx]'",
)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    return load_network(*NETWORKS[request.param], None)


@pytest.fixture(scope="module", params=["original", "compressed"])
def source(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    network: Network,
    random_plans: ModuleType,
) -> Path:
    """A network in FP32: as it came, or with a random plan executed."""
    module = network.module
    if request.param == "compressed":
        module = execute(network, random_plans.random_plan(network, random.Random(3)), []).merged
    path = tmp_path_factory.mktemp("compiled") / f"{request.param}.onnx"
    export_onnx(fold_norms(module), network.input_shape, path)
    return path


@needs_compiler
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_delivered_compiles(source: Path, network: Network, precision: str) -> None:
    typed = converted(source, network, precision)
    assert graph_precision(onnx.load(typed.path)) == precision
    target = "sm86" if precision == "int8" else "sm75"
    engine = get_runtime(f"tensorrt-rtx:{target}").build(
        typed.path, BuildOptions(precision=precision), {INPUT: (BATCH, *network.input_shape)}
    )
    plan = source.with_name(f"{precision}.engine")
    engine.save(plan)
    assert read_header(plan).targets == (target,)
    require_asked(onnx.load(typed.path), kernels(plan.read_bytes()), target)


def require_asked(model: onnx.ModelProto, launched: tuple[PlanKernel, ...], target: str) -> None:
    """A plan holds the kernels that were asked for: as many convolutions, in their types, with what is around them."""
    nodes = {node.name: node.op_type for node in model.graph.node}
    convolutions = [name for name, kind in nodes.items() if kind == "Conv"]
    computed = [kernel for kernel in launched if kernel.convolution]
    by_node = {name: [one for one in computed if name in one.fused] for name in convolutions}
    assert {name: len(found) for name, found in by_node.items()} == dict.fromkeys(convolutions, 1)
    precision, products = graph_precision(model), sum(kind in ("Gemm", "MatMul") for kind in nodes.values())
    assert len(computed) == len(convolutions) + products * ((precision, target) == ("fp32", "sm75"))
    if precision != "int8":  # there, types change in between
        behind = {node.output[0]: node.name for node in model.graph.node if node.op_type == "Conv"}
        activations = [node for node in model.graph.node if node.op_type in ("Relu", "Clip")]
        pairs = {node.name: behind[node.input[0]] for node in activations if node.input[0] in behind}
        apart = {
            name: conv for name, conv in pairs.items() if not any({name, conv} <= {*one.fused} for one in computed)
        }
        assert pairs and apart == {}, "an activation behind a convolution is no kernel of its own"
        assert {kernel.type for kernel in computed} == {precision}
    assert len(launched) < len(nodes)


@needs_compiler
def test_a_range_of_batches_compiles(source: Path, network: Network) -> None:
    options = BuildOptions(precision="fp16", batches=(1, 16))
    shapes = {INPUT: (BATCH, *network.input_shape)}
    engine = get_runtime("tensorrt-rtx:sm75").build(converted(source, network, "fp16").path, options, shapes)
    assert engine.inputs == shapes


def converted(source: Path, network: Network, precision: str) -> Typed:
    images = torch.randn(32, *network.input_shape, generator=torch.Generator().manual_seed(0))
    return write_typed(source, precision, list(torch.split(images, 16)))
