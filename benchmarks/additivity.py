"""Whether latencies of blocks add up to the latency of a network: chains of one block against the block in isolation.

Everything is timed interleaved in one process, so that only the ratios count.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, numpy_helper

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime

LENGTH = 8


def chain_of(signature: Signature, length: int) -> onnx.ModelProto:
    """The block of a signature, ``length`` times in a row."""
    block = candidate_model(signature).graph
    (given,), (result,) = block.input, block.output
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in block.initializer}
    nodes, current = [], given.name
    for copy in range(length):
        names = {given.name: current} | {name: name for name in weights}
        for node in block.node:
            clone = onnx.NodeProto()
            clone.CopyFrom(node)
            clone.name = ""
            clone.input[:] = [names.get(name, f"{name}_{copy}") for name in node.input]
            clone.output[:] = [f"{name}_{copy}" for name in node.output]
            nodes.append(clone)
        current = f"{result.name}_{copy}"
    shape = (signature.batch, *signature.output_shape)
    end = helper.make_tensor_value_info(current, TensorProto.FLOAT, shape)
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "chain", [given], [end], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def main() -> None:
    """Print the ratios."""
    runtime, policy = get_runtime("onnxruntime"), MeasurementPolicy(max_seconds=3.0)
    print(f"{LENGTH} blocks in a row, batch 8, one thread: sum of the blocks / the chain's own latency")
    print(f"{'block':<36}{'as the profile times it':>26}{'timed alone':>14}")
    for channels, size in ((16, 28), (32, 14), (64, 14), (64, 7)):
        geometry = Geometry(channels, channels, (3, 3), padding=(1, 1, 1, 1))
        signature = Signature(8, (channels, size, size), geometry, activation="relu")
        timings = compare(
            {
                "chain": runtime.build(chain_of(signature, LENGTH), BuildOptions()),
                "isolated": runtime.build(candidate_model(signature), BuildOptions(isolated=True)),
                "alone": runtime.build(candidate_model(signature), BuildOptions()),
            },
            policy,
        )
        chain = timings["chain"].median_ns
        ratios = (LENGTH * timings[name].median_ns / chain for name in ("isolated", "alone"))
        print(f"{f'{channels} channels 3x3, {size}x{size}':<36}{next(ratios):>26.3f}{next(ratios):>14.3f}")


if __name__ == "__main__":
    main()
