"""Gathering what the consumers of channel groups read: one pass over calibration data for as many as memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from trt_layermerge.merging.channel_choice import Reading, corrected
from trt_layermerge.merging.patches import (
    LARGEST_SYSTEM,
    at,
    in_parts,
    sample_positions,
    samples_by_batch,
    samples_needed,
    unknowns_of,
    windows,
)
from trt_layermerge.merging.ridge import add_products, mirror
from trt_layermerge.network.channel_group import ChannelGroup
from trt_layermerge.network.cut import up_to
from trt_layermerge.network.device import device_of, moved
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.inputs import Values
from trt_layermerge.network.padding import geometry_of
from trt_layermerge.network.placing import called_module, consumer
from trt_layermerge.network.units import sole_user

GRAM_MEMORY = 1 << 30
"""Bytes that the matrices which are gathered at once take at most where there is room; those of one group alone may
take more."""


@dataclass(frozen=True)
class View:
    """How consumers look at a tensor: those with the same view share a matrix.

    Attributes:
        source: Node of the tensor.
        geometry: Of the patches; its ``out_channels`` say nothing.
    """

    source: str
    geometry: Geometry

    @property
    def bytes(self) -> int:
        """Memory of its matrix."""
        return 8 * (unknowns_of(self.geometry) + 1) ** 2


def readings_of(
    module: fx.GraphModule, groups: Sequence[ChannelGroup], calibration: Sequence[Values], memory: int = GRAM_MEMORY
) -> Iterator[tuple[ChannelGroup, dict[str, Reading]]]:
    """What the consumers of each group read, by their nodes, in the order of the groups.

    Args:
        module: The network, in evaluation mode.
        groups: Of it.
        calibration: Batches of its inputs.
        memory: Bytes for their matrices.

    Raises:
        TaskError: There is no data.
    """
    most = min(GRAM_MEMORY, memory)
    waiting: list[ChannelGroup] = []
    for group in groups:
        if waiting and sum(view.bytes for view in _views(module, [*waiting, group]).values()) > most:
            yield from _gathered(module, waiting, calibration)
            waiting = []
        waiting.append(group)
    if waiting:
        yield from _gathered(module, waiting, calibration)


def _views(module: fx.GraphModule, groups: Sequence[ChannelGroup]) -> dict[str, View]:
    """How each consumer of some groups looks at what it reads."""
    consumers = {name for group in groups for name in group.consumers}
    nodes = [node for node in module.graph.nodes if node.name in consumers]
    return {node.name: View(node.all_input_nodes[0].name, _seen(consumer(module, node))) for node in nodes}


def _seen(part: nn.Conv2d | nn.Linear) -> Geometry:
    """The patches that are looked at: the consumer's own, or single pixels where those are too large or have gaps."""
    if isinstance(part, nn.Linear):
        return Geometry(part.in_features, 1, (1, 1))
    geometry = replace(geometry_of(part), out_channels=1)
    if geometry.dilation == (1, 1) and unknowns_of(geometry) <= LARGEST_SYSTEM:
        return geometry
    return Geometry(part.in_channels, 1, (1, 1))


def _gathered(
    module: fx.GraphModule, groups: Sequence[ChannelGroup], calibration: Sequence[Values]
) -> Iterator[tuple[ChannelGroup, dict[str, Reading]]]:
    views = _views(module, groups)
    moments = _moments(module, list(dict.fromkeys(views.values())), calibration)
    nodes = {node.name: node for node in module.graph.nodes}
    for group in groups:
        readings = {}
        for name in group.consumers:
            rows = _rows(consumer(module, nodes[name]), group.channels, views[name].geometry)
            readings[name] = Reading(*moments[views[name]], rows, _scale(module, nodes[name], rows))
        yield group, readings


def _moments(
    module: fx.GraphModule, views: Sequence[View], calibration: Sequence[Values]
) -> dict[View, tuple[Tensor, Tensor]]:
    """The centred Gram matrix and the mean of the patches of some views."""
    sources = list(dict.fromkeys(view.source for view in views))
    head, device = up_to(module, sources), device_of(module)
    shares = {view: samples_by_batch(samples_needed(view.geometry), calibration) for view in views}
    totals = {view: _empty(view.geometry, device) for view in views}
    with torch.inference_mode():
        for number, inputs in enumerate(calibration):
            values = dict(zip(sources, head(*moved(inputs, device)), strict=True))
            for view in views:
                _add(totals[view], values[view.source], view.geometry, shares[view][number], number)
    for total in totals.values():
        mirror(total)
    return {view: _centred(total[0]) for view, total in totals.items()}


def _empty(geometry: Geometry, device: torch.device) -> Tensor:
    size = unknowns_of(geometry) + 1
    return torch.zeros(1, size, size, dtype=torch.float64, device=device)


def _add(total: Tensor, values: Tensor, geometry: Geometry, samples: int, seed: int) -> None:
    """Add the products of some patches, each with a constant 1 at its end."""
    images = values if values.dim() == 4 else values[:, :, None, None]
    shape = (len(images), 1, *geometry.output_size((images.shape[2], images.shape[3])))
    positions = sample_positions(shape, samples, torch.Generator().manual_seed(seed))
    view = windows(images, geometry)
    for some in in_parts(positions, len(total[0])):
        patches = at(view, some, 1).double()
        add_products(total, torch.cat([patches, patches.new_ones(*patches.shape[:2], 1)], 2))


def _centred(total: Tensor) -> tuple[Tensor, Tensor]:
    samples, means = total[-1, -1], total[-1, :-1] / total[-1, -1]
    return total[:-1, :-1] / samples - means[:, None] * means, means


def write_corrected(module: fx.GraphModule, name: str, reading: Reading, kept: Sequence[int]) -> None:
    """Give a consumer the weights with which it does without some channels; those for the others are 0 then.

    What its bias needs goes into a norm behind it, if there is one.
    """
    (node,) = (node for node in module.graph.nodes if node.name == name)
    part, norm = consumer(module, node), _norm_behind(module, node)
    weight, shift = corrected(reading, kept)
    shift = shift.reshape(len(part.weight), -1).sum(1)
    with torch.no_grad():
        part.weight.copy_(_from_rows(weight, part))
        if part.bias is not None:
            part.bias.add_(shift)
        elif norm is not None and norm.running_mean is not None:
            norm.running_mean.sub_(shift)
        else:
            part.bias = nn.Parameter(shift.to(part.weight))


def _rows(part: nn.Conv2d | nn.Linear, channels: int, geometry: Geometry) -> Tensor:
    """A consumer's weights ``[channels, each, outputs]``; of single pixels, each of its taps makes outputs."""
    weight = part.weight.detach().double().transpose(0, 1)
    weight = weight.reshape(*weight.shape[:2], -1)  # [in, out, taps]
    whole = unknowns_of(geometry) == weight.shape[0] * weight.shape[2]
    rows = weight.transpose(1, 2).reshape(channels, -1, weight.shape[1]) if whole else weight
    return rows.reshape(channels, unknowns_of(geometry) // channels, -1).contiguous()


def _from_rows(rows: Tensor, part: nn.Conv2d | nn.Linear) -> Tensor:
    """Weights as a layer has them, of those that a reading has: ``[channels, each, outputs]``."""
    outputs, inputs = part.weight.shape[:2]
    taps = part.weight[0, 0].numel()
    whole = rows.shape[2] == outputs
    weight = rows.reshape(inputs, taps, outputs).transpose(1, 2) if whole else rows.reshape(inputs, outputs, taps)
    return weight.transpose(0, 1).reshape(part.weight.shape)


def _norm_behind(module: fx.GraphModule, node: fx.Node) -> nn.BatchNorm2d | None:
    """The batch norm that alone reads a consumer's result."""
    user = sole_user(node)
    norm = None if user is None else called_module(module, user)
    return norm if isinstance(norm, nn.BatchNorm2d) else None


def _scale(module: fx.GraphModule, node: fx.Node, rows: Tensor) -> Tensor:
    """What a norm behind a consumer multiplies its outputs by, those of each tap in a row."""
    norm, outputs = _norm_behind(module, node), len(consumer(module, node).weight)
    scale = torch.ones(outputs, dtype=torch.float64, device=rows.device)
    if norm is not None and norm.running_var is not None:
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight.detach().double()
    return scale.repeat_interleave(rows.shape[2] // outputs)
