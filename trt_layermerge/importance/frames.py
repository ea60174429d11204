"""Normal equations of many blocks, accumulated together.

Blocks that start at one tensor and whose largest kernels see the same patches share a *frame*: one matrix, and one
factor for each kernel inside it. What a frame samples depends on its kernel and on nothing else, so that no row depends
on which others are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from trt_layermerge.blocks.candidates import fit_geometries
from trt_layermerge.blocks.choice import Choice, Kind, Place
from trt_layermerge.blocks.lowering import Lowering, Shift, lowered_in
from trt_layermerge.merging.columns import channels_of
from trt_layermerge.merging.fitting import Equations, Patches, equations_bytes, equations_for
from trt_layermerge.merging.patches import sample_positions, samples_by_batch, samples_needed
from trt_layermerge.network.count import bytes_of, pass_bytes
from trt_layermerge.network.cut import up_to
from trt_layermerge.network.device import device_of, moved
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.inputs import Values, as_tuple, samples_in
from trt_layermerge.network.network import Network
from trt_layermerge.resources.memory import MOST_ACTIVATIONS


@dataclass(frozen=True)
class Frame:
    """Blocks that start at one tensor and see the same patches.

    Attributes:
        geometry: The largest kernel that any of them may be fitted with; its ``out_channels`` say nothing.
        places: The blocks, and what activations are added behind them.
        shifts: What is added to the result of each.
        outputs: Channels of the result of each.
    """

    geometry: Geometry
    places: tuple[Place, ...]
    shifts: tuple[Shift, ...] = ()
    outputs: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        """Memory of the equations of its blocks, and of a fit from them."""
        return equations_bytes(self.geometry, channels_of(self.shifts), self.outputs)


def frames_of(network: Network, places: Iterable[Place], max_kernel: int) -> list[Frame]:
    """The frames of blocks that start at one tensor.

    Args:
        network: Theirs.
        places: The blocks.
        max_kernel: The largest kernel that they may be fitted with.
    """
    found: dict[tuple[Geometry, tuple[Shift, ...]], dict[Place, int]] = {}
    for place in places:
        *_, largest = fit_geometries(network, place, max_kernel)
        shifts = _lowered(network, place).shifts
        members = found.setdefault((replace(largest, out_channels=largest.groups), shifts), {})
        members[place] = largest.out_channels
    return [
        Frame(geometry, tuple(members), shifts, tuple(members.values()))
        for (geometry, shifts), members in found.items()
    ]


def _lowered(network: Network, place: Place) -> Lowering:
    """What any fit leaves of a block."""
    return lowered_in(network, Choice(place[0], Kind.FIT, None, activation=place[1]))


def in_memory(frames: Iterable[Frame], limit: int) -> Iterator[list[Frame]]:
    """The frames in groups that may be held at once; each takes one pass over the data."""
    group: list[Frame] = []
    for frame in frames:
        if group and sum(one.bytes for one in group) + frame.bytes > limit:
            yield group
            group = []
        group.append(frame)
    if group:
        yield group


@dataclass(frozen=True)
class Accumulated:
    """Equations of a frame, and which of their targets are a block's.

    Attributes:
        equations: Of the frame.
        index: The block's place in them.
    """

    equations: Equations
    index: int


def accumulate(
    network: Network, frames: Sequence[Frame], calibration: Sequence[Values], memory: int = MOST_ACTIVATIONS
) -> dict[Place, Accumulated]:
    """The equations of all blocks of some frames that start at one tensor, from one pass over the data.

    Args:
        network: The original.
        frames: Of it.
        calibration: Batches of its inputs.
        memory: Bytes for activations; of a batch that takes more, some images are looked at at a time.

    Raises:
        TaskError: There is no data.
    """
    places = [place for frame in frames for place in frame.places]
    aims = {place: _lowered(network, place) for place in places}
    start = aims[places[0]].reads
    equations = [equations_for(frame.geometry, len(frame.places), frame.shifts) for frame in frames]
    shares = [samples_by_batch(samples_needed(frame.geometry), calibration) for frame in frames]
    names = {place: [aim.sums, *(skip.operand for skip in aim.skips)] for place, aim in aims.items()}
    added = [shift.node for frame in frames for shift in frame.shifts]
    wanted = list(dict.fromkeys([start, *added, *(name for group in names.values() for name in group)]))
    head, device = up_to(network.module, wanted), device_of(network.module)
    at_once = max(1, memory // (pass_bytes(head.graph, 1) + 2 * bytes_of(head.graph, wanted)))
    with torch.inference_mode():
        for number, inputs in enumerate(calibration):
            batch, positions = as_tuple(inputs), dict[Frame, Tensor]()
            for first in range(0, samples_in(inputs), at_once):
                some = moved(tuple(part[first : first + at_once] for part in batch), device)
                values = dict(zip(wanted, head(*some), strict=True))
                for frame, share, equation in zip(frames, shares, equations, strict=True):
                    targets = [_target(values, names[place]) for place in frame.places]
                    images = len(targets[0]) // samples_in(some)  # of a sample, which may be a clip
                    if frame not in positions:  # of the whole batch, however it is looked at
                        shape = (images * samples_in(inputs), *targets[0].shape[1:])
                        generator = torch.Generator().manual_seed(number)
                        positions[frame] = sample_positions(shape, share[number], generator)
                    shifts = [values[shift.node] for shift in frame.shifts]
                    _add(equation, values[start], targets, shifts, positions[frame], images * first)
    return {
        place: Accumulated(equation, index)
        for frame, equation in zip(frames, equations, strict=True)
        for index, place in enumerate(frame.places)
    }


def _add(
    equation: Equations,
    inputs: Tensor,
    targets: Sequence[Tensor],
    shifts: Sequence[Tensor],
    positions: Int[Tensor, "samples 3"],
    first: int,
) -> None:
    """Add some images of a batch, from ``first`` on; positions are those of all its images."""
    here = (positions[:, 0] >= first) & (positions[:, 0] < first + len(inputs))
    some = positions[here] - torch.tensor([first, 0, 0])
    if isinstance(equation, Patches):
        equation.add(inputs, targets, some, shifts, equation.evenly(len(positions))[here])
    else:
        equation.add(inputs, targets, some, shifts)


def _target(values: dict[str, Tensor], names: Sequence[str]) -> Tensor:
    """What a convolution alone is to make: the sum before the activation, without what skips from outside add to it."""
    total, *added = (values[name] for name in names)
    return total - sum(added) if added else total
