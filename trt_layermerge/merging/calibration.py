"""The original and the network that is being compressed, side by side on the data that fits are solved on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.lowering import Lowering, Shift, lowered_in
from trt_layermerge.merging.narrowing import Kept, entries_of, masked
from trt_layermerge.merging.original_values import OriginalValues
from trt_layermerge.merging.patches import at, beside_shifts, sample_positions, samples_by_batch, samples_kept, windows
from trt_layermerge.merging.responses import Responses
from trt_layermerge.merging.rewrite import module_name, rewrite
from trt_layermerge.merging.width import Width, some_of
from trt_layermerge.network.chain import Unit
from trt_layermerge.network.cut import up_to
from trt_layermerge.network.device import device_of, moved
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.inputs import Values, samples_in
from trt_layermerge.network.network import Network
from trt_layermerge.resources.memory import MOST_ACTIVATIONS


class CalibrationRuns:
    """Runs of both networks on calibration data: what tensors look like now, and in the original.

    Args:
        network: The original, in evaluation mode; it is not changed.
        inputs: Calibration batches, ``[batch, ...]`` for each input.
        kept: What stays of channel groups.
        memory: Most bytes of activations that are kept between blocks.

    Attributes:
        original: The original.
        original_values: What that makes of the data.
        working: A copy of it, in which layers may get other weights; nothing in it reads channels that do not stay.
        done: What has taken the place of blocks so far; the compressed network is the working copy with these.
    """

    def __init__(
        self, network: Network, inputs: Sequence[Values], kept: Kept | None = None, memory: int = MOST_ACTIVATIONS
    ) -> None:
        self.kept = {} if kept is None else kept
        self.original, self.working = network, replace(network, module=masked(network.module, self.kept).eval())
        self.done: dict[Choice, nn.Module | None] = {}
        numbers = {node.name: (*node.meta.get("shape", ()), 0)[0] for node in network.module.graph.nodes}
        self._stay = {
            name: entries_of(sorted(stay), group.channels, numbers[name])
            for group, stay in self.kept.items()
            for name in group.nodes
        }
        self._inputs, self._device = inputs, device_of(network.module)
        self.original_values = OriginalValues(
            network.module, self.batches, memory if self._device.type == "cpu" else 0
        )  # a GPU's memory is not what is told here

    @property
    def has_data(self) -> bool:
        """Whether there is anything to solve on: a plan without fits needs no data."""
        return any(map(samples_in, self._inputs))

    def narrowed(self, node: str) -> bool:
        """Whether channels of a node of the original do not stay."""
        return node in self._stay

    def width(self, geometry: Geometry, reads: str, writes: str) -> Width:
        """Which channels of a convolution between two nodes of the original stay."""
        return Width.of(geometry, self._stay.get(reads), self._stay.get(writes))

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """The data where the network is, one batch at a time: all of it may be more than a GPU holds."""
        return (moved(batch, self._device) for batch in self._inputs)

    def agree_at(self, name: str) -> bool:
        """Whether both networks compute just the same at a node, on one sample."""
        if not self.done and not self.kept:
            return True
        student, teacher = up_to(self._compressed(), [name]), up_to(self.original.module, [name])
        some = [values[:1] for values in next(batch for batch in self.batches() if samples_in(batch))]
        with torch.no_grad():
            return torch.equal(student(*some)[0], teacher(*some)[0])

    def responses(self, choice: Choice, geometry: Geometry, width: Width) -> Responses:
        """Patches of a block's input as it is now, and what the original has at the same pixels.

        Where the choice adds an activation, the original has none: what comes out of it, and the skips then added, is
        to be near the block's own output. Shifts are a part of the patches of a fit; to a kept layer they are added.

        Args:
            choice: The block's.
            geometry: Of what is fitted, as wide as what stays.
            width: What stays of the block's input and output.

        Raises:
            TaskError: There is no calibration data.
        """
        marker = replace(choice, kind=Kind.FIT, geometry=geometry, kept=())
        lowered = lowered_in(self.original, marker)
        marked = self._compressed(marker)
        wanted = lowered.sums if choice.activation is None else lowered.writes
        shifts = lowered.shifts if choice.kind is Kind.FIT else ()
        return self._sampled(up_to(marked, _around(marked, marker, lowered)), wanted, geometry, width, shifts)

    def unit_responses(self, unit: Unit, geometry: Geometry, width: Width) -> Responses:
        """The same for a unit that a skip leads through.

        Raises:
            TaskError: There is no calibration data.
        """
        compressed = self._compressed()
        (node,) = (node for node in compressed.graph.nodes if node.name == unit.first)
        return self._sampled(up_to(compressed, [node.all_input_nodes[0].name]), unit.last, geometry, width)

    def _sampled(
        self,
        student: fx.GraphModule,
        wanted: str,
        geometry: Geometry,
        width: Width,
        shifts: tuple[Shift, ...] = (),
    ) -> Responses:
        """Patches of the first thing that a part of the network makes, the sum of the others, and what is wanted.

        Behind the first, there are the shifts, which the patches end in.
        """
        teacher = self.original_values.at(wanted)
        generator, groups = torch.Generator().manual_seed(0), geometry.groups
        parts: list[tuple[Tensor, ...]] = []
        with torch.no_grad():
            counts = samples_by_batch(samples_kept(geometry), self._inputs)
            for batch, target, count in zip(self.batches(), teacher, counts, strict=True):
                x, *others = student(*batch)
                x, target, values = some_of(x, width.inputs), some_of(target, width.outputs), others[: len(shifts)]
                added = (some_of(one, width.outputs) for one in others[len(shifts) :])
                positions = sample_positions(target.shape, count, generator)
                rows = beside_shifts(at(windows(x, geometry), positions, groups), values, positions)
                rows = torch.cat([rows, rows.new_ones(*rows.shape[:2], 1)], 2)
                total = sum(added, torch.zeros_like(target))
                parts.append((rows, at(target, positions, groups), at(total, positions, groups)))
        patches, wanted_rows, added_rows = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        return Responses(patches, wanted_rows, added_rows, shifts)

    def _compressed(self, *markers: Choice) -> fx.GraphModule:
        """The network as it is so far, with something to be found by in the place of other blocks."""
        return rewrite(self.working, {**self.done, **{marker: nn.Identity() for marker in markers}}, share=True)


def _around(marked: fx.GraphModule, marker: Choice, lowered: Lowering) -> list[str]:
    """Nodes of the block's input, its shifts, and of what else is added to its result, in a network where it is marked.

    They are found by walking on from the mark: a skip's own name is gone where a block before has taken its place.
    """
    name = module_name(marker.block)
    (node,) = (node for node in marked.graph.nodes if node.op == "call_module" and node.target == name)
    names, skips = [operand.name for operand in node.args if isinstance(operand, fx.Node)], lowered.skips
    if marker.activation is not None:
        (node,) = node.users
        skips = lowered.late_skips
    for _ in skips:
        (add,) = node.users
        names += [operand.name for operand in add.all_input_nodes if operand is not node]
        node = add
    return names
