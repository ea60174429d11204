"""Rows of channel groups: the network with one group narrowed, what reads it solved again, on held-out data.

Which channels stay is chosen once for a group (``merging.channel_choice``): of every width, the first of one order. So
a wider row keeps all that a narrower one does, and a plan's widths can be told apart by their losses alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import fx

from trt_layermerge.blocks.sized_choices import NarrowedGroup
from trt_layermerge.importance.estimators.base import EstimationRequest
from trt_layermerge.importance.oneshot import Prepared
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.merging.channel_choice import Reading, order_of
from trt_layermerge.merging.readings import readings_of, write_corrected
from trt_layermerge.network.channel_group import ChannelGroup


def narrowed_rows(request: EstimationRequest) -> Iterator[ImportanceRow]:
    """Narrow one group after the other, to each of its widths, and measure it."""
    network, prepared = request.network, Prepared.of(request)
    evaluator = prepared.evaluator
    widths: dict[ChannelGroup, list[NarrowedGroup]] = {}
    for one in request.narrowed:
        widths.setdefault(one.group, []).append(one)
    began = time.monotonic()
    for group, readings in readings_of(network.module, list(widths), prepared.calibration, prepared.room.equations):
        order = order_of(list(readings.values()))
        for one in widths[group]:
            kept = tuple(sorted(order[: one.channels]))
            after = evaluator.narrowed(solved_without(network.module, kept, readings), {group: kept})
            yield replace(evaluator.row(one, after, None, time.monotonic() - began), kept=kept)
            began = time.monotonic()


def solved_without(module: fx.GraphModule, kept: tuple[int, ...], readings: Mapping[str, Reading]) -> fx.GraphModule:
    """A copy of a network, as wide as it is, in which consumers do without some channels of what they read.

    Args:
        module: The network.
        kept: Which channels they may read.
        readings: What they read, by their nodes.
    """
    solved = fx.GraphModule(copy.deepcopy(module), copy.deepcopy(module.graph))
    for name, reading in readings.items():
        write_corrected(solved, name, reading, kept)
    return solved
