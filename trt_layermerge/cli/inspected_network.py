"""What ``inspect`` shows of a network: what can be merged in it, and why the rest cannot."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.copies import without_copies
from trt_layermerge.blocks.cost import signatures
from trt_layermerge.blocks.coverage import convolutions, irreplaceable, replaceable
from trt_layermerge.cli.show import print_json
from trt_layermerge.delivery.onnx_sketch import unwritable
from trt_layermerge.network.chain import Chain, Layer, Skip
from trt_layermerge.network.channel_group import ChannelGroup, FixedChannels
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.session import for_method
from trt_layermerge.report.wide_console import wide_console


def inspect_network(job: Job, *, as_json: bool) -> None:
    """Show a network.

    Raises:
        LayerMergeError: It cannot be loaded.
    """
    network = load_network(job.model, job.weights, job.input_shape)
    choices = choices_of(network, job.limits)
    distinct = {signature for choice in choices for signature in signatures(network, choice, job.setting)}
    found = {
        "model": network.name,
        "inputs": [{"name": item.name, "shape": list(item.shape), "below": item.below} for item in network.inputs],
        "outputs": list(network.outputs),
        "notes": list(network.notes),
        "layers": [_layer(chain, layer) for chain in network.chains for layer in chain.layers],
        "skips": [_skip(chain, skip) for chain in network.chains for skip in chain.skips],
        "breaks": [{"after": item.after, "reason": item.reason} for item in network.breaks],
        "channel_groups": [_group(network, group) for group in network.channel_groups],
        "fixed_channels": [_fixed(network, fixed) for fixed in network.fixed_channels],
        "convolutions": len(convolutions(network)),
        "replaceable": len(replaceable(network, choices)),
        "replaceable_in_chains": len(replaceable(network, (one for one in choices if one.block.region is None))),
        "irreplaceable": [
            {"convolution": name, "reason": reason}
            for name, reason in irreplaceable(network, choices, job.limits).items()
        ],
        "regions": len(network.regions),
        "choices": len(choices),
        "admitted": len(without_copies(network, for_method(choices, job.planner))),
        "signatures": len(distinct),
        "largest_merge": _largest_merge(network, choices),
        "no_onnx": [asdict(one) for one in unwritable(network)],
    }
    if as_json:
        print_json(found)
    else:
        _show(found, job.method)


def _layer(chain: Chain, layer: Layer) -> dict[str, Any]:
    return {
        "chain": chain.index,
        "index": layer.index,
        "name": layer.name,
        "convolution": str(layer.geometry),
        "pre_norm": None if layer.pre_norm is None else str(layer.pre_norm),
        "norm": layer.norm is not None,
        "shift": layer.shift is not None,
        "activation": layer.activation,
        "input": list(layer.input_shape),
        "output": list(layer.output_shape),
    }


def _skip(chain: Chain, skip: Skip) -> dict[str, Any]:
    return {
        "chain": chain.index,
        "start": skip.start,
        "end": skip.end,
        "late": skip.late,
        "name": skip.name,
        "convolution": None if skip.geometry is None else str(skip.geometry),
    }


def _group(network: Network, group: ChannelGroup) -> dict[str, Any]:
    return {
        "channels": group.channels,
        "producers": _called(network, group.producers),
        "consumers": _called(network, group.consumers),
        "tensors": [f"{chain}:{number}" for chain, number in group.tensors],
    }


def _fixed(network: Network, fixed: FixedChannels) -> dict[str, Any]:
    return {"producers": _called(network, fixed.producers), "reason": fixed.reason}


def _called(network: Network, names: Collection[str]) -> list[str]:
    """The modules that nodes call."""
    return [str(node.target) for node in network.module.graph.nodes if node.name in names]


def _largest_merge(network: Network, choices: Iterable[Choice]) -> dict[str, Any] | None:
    """The exact merge of most convolutions, then of the longest block; ``None`` where nothing can be merged."""
    sizes = {
        choice: len(choice.kept) if choice.block.region is None else network.regions[choice.block.region].convolutions
        for choice in choices
        if choice.kind is Kind.MERGE
    }
    largest = max(sizes, key=lambda choice: (sizes[choice], len(choice.block)), default=None)
    if largest is None or sizes[largest] < 2:
        return None
    return {"block": str(largest.block), "convolutions": sizes[largest], "into": str(largest.geometry)}


def _show(found: dict[str, Any], method: str) -> None:
    console = wide_console()
    table = Table("chain", "layer", "name", "convolution", "activation", "output", title=found["model"])
    for layer in found["layers"]:
        shape = "x".join(map(str, layer["output"]))
        around = [layer["pre_norm"], _brief(layer["convolution"]), "shift" if layer["shift"] else None]
        computed = ", ".join(part for part in around if part)
        table.add_row(str(layer["chain"]), str(layer["index"]), layer["name"], computed, layer["activation"], shape)
    console.print(table)
    for skip in found["skips"]:
        through = f" through {skip['name']}" if skip["name"] else ""
        late = ", behind its activation" if skip["late"] else ""
        console.print(f"skip in chain {skip['chain']}: tensor {skip['start']} to layer {skip['end']}{late}{through}")
    for number, group in enumerate(found["channel_groups"]):
        made, read = (_listed(group[part]) for part in ("producers", "consumers"))
        console.print(f"channel group {number}: {group['channels']} channels, made by {made}, read by {read}")
    for reason, count in Counter(item["reason"] for item in found["fixed_channels"]).items():
        console.print(f"channels that must all stay: {reason} ({count})")
    if len(found["outputs"]) > 1:
        console.print(f"outputs: {', '.join(found['outputs'])}")
    for item in found["breaks"]:
        console.print(f"a chain ends after {item['after']}: {item['reason']}")
    if largest := found["largest_merge"]:
        console.print(f"largest exact merge: {largest['convolutions']} convolutions ({largest['block']}) into one")
    regions = f", or in one of {found['regions']} regions," if found["regions"] else ""
    console.print(
        f"{found['replaceable']} of {found['convolutions']} convolutions lie in a block of several layers{regions} "
        "that one convolution can replace"
    )
    for item in found["irreplaceable"]:
        console.print(f"not {item['convolution']}: {item['reason']}")
    console.print(
        f"{found['choices']} candidate choices, {found['admitted']} of them for method {method}; "
        f"{found['signatures']} distinct signatures"
    )
    for item in found["no_onnx"]:
        console.print(
            f"no form in ONNX, without which compress cannot begin: {item['operator']} at {item['name']}: "
            f"{item['reason']}",
            markup=False,
        )


_CONVOLUTION = re.compile(r"(\d+>\d+ k(\d+)x(\d+))( s\S+)( p\S+)( d(\d+)x(\d+))( g\d+)")


def _brief(geometry: str) -> str:
    """A convolution without what most have: stride and dilation of 1, one group, and padding that keeps the size."""
    parts = _CONVOLUTION.fullmatch(geometry)
    assert parts is not None, "which is how a geometry is written"
    rows, columns = ((int(parts[2 + axis]) - 1) * int(parts[7 + axis]) // 2 for axis in (0, 1))
    usual = {" s1x1", f" p{rows},{columns},{rows},{columns}", " d1x1", " g1"}
    return parts[1] + "".join(part for part in parts.group(4, 5, 6, 9) if part not in usual)


def _listed(names: Sequence[str]) -> str:
    """Some names, and how many there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
