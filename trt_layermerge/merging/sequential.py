"""Making the modules of a whole plan, block after block.

A fit sees the compressed network's own activations and aims at the original's outputs, so that it makes up for what the
blocks before it have changed (design, section 5); so do the layers that are kept, and the classifier at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx, nn

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.lowering import ChainLowering, lowered_in
from trt_layermerge.errors import ModelError
from trt_layermerge.merging.algebra import Convolution, to_module
from trt_layermerge.merging.calibration import CalibrationRuns
from trt_layermerge.merging.fitting import Equations, Fitted, admissible_prior
from trt_layermerge.merging.linear import LinearisedBlock, folded, normed
from trt_layermerge.merging.linear_region import LinearisedRegion, folded_region
from trt_layermerge.merging.narrowing import Kept, narrow
from trt_layermerge.merging.proof import BlockProof, prove_block
from trt_layermerge.merging.reconstruction import Reconstruction, Strength, not_finite
from trt_layermerge.merging.rewrite import rewrite
from trt_layermerge.network.bookkeeping import Bookkeeping, LinearForm
from trt_layermerge.network.device import CPU, move, placed
from trt_layermerge.network.inputs import Values
from trt_layermerge.network.network import Network
from trt_layermerge.progress import Progress
from trt_layermerge.resources.heap import heap_kept
from trt_layermerge.resources.memory import MemoryLimit, Need


@dataclass(frozen=True)
class Compression:
    """A network with a plan executed.

    Attributes:
        merged: The compressed network.
        linearised: The same with merged blocks in their unmerged form, as wide as the original; it computes the same.
        proofs: Of each merged block.
        fits: How well each fitted block could be fitted, by its choice's key.
        refits: The same of kept layers whose weights were re-solved.
    """

    merged: fx.GraphModule
    linearised: fx.GraphModule
    proofs: tuple[BlockProof, ...]
    fits: Mapping[str, Fitted]
    refits: Mapping[str, Fitted]


@heap_kept()
def execute(
    network: Network,
    choices: Iterable[Choice],
    inputs: Sequence[Values],
    progress: Progress | None = None,
    strength: Strength | None = None,
    kept: Kept | None = None,
    memory: MemoryLimit | None = None,
) -> Compression:
    """Merge, fit and drop the blocks of a plan, narrow what is left, and prove the merges.

    While blocks are made, the network is as wide as it was, but nothing reads channels that do not stay. What reads
    the others is solved for what it made of all of them.

    Args:
        network: The original, in evaluation mode; it is not changed.
        choices: The plan's, in any order.
        inputs: Calibration batches, ``[batch, ...]`` for each input, for fits.
        progress: Told of every block.
        strength: What fits make use of; by default, of everything.
        kept: What stays of channel groups of the network.
        memory: The most that the process may take; by default, a share of what is free.

    Raises:
        ModelError: A block to fit has activations that are not finite, or a group cannot be narrowed with these blocks.
        ProofError: A merged block does not compute what its unmerged form does.
        TaskError: There is a block to fit, but no calibration data.
    """
    memory = memory or MemoryLimit.usual()
    runs = CalibrationRuns(network, inputs, kept, memory.room(Need()).activations // 2)
    reconstruction = Reconstruction(runs, strength or Strength())
    blocks = _Blocks(network, reconstruction)
    todo = sorted((choice for choice in choices if reconstruction.changes(choice)), key=lambda choice: choice.block)
    if kept:
        reconstruction.correct(todo, memory.room(Need()))
    for number, choice in enumerate(todo):
        if progress is not None:
            progress(number, len(todo), choice.key)
        memory.keep()
        if kept:
            reconstruction.refit_beside(choice)
        blocks.make(choice)
    made = (runs.done, blocks.linearised)
    compressed, as_linearised = (rewrite(runs.working, modules).eval() for modules in made)
    if runs.done or kept:
        reconstruction.correct_norms(compressed, as_linearised)
        reconstruction.refit_heads(compressed, as_linearised)
    narrowed = _narrowed(network, compressed, kept)
    return Compression(narrowed, as_linearised, tuple(blocks.proofs), blocks.fits, blocks.refits)


class _Blocks:
    """What takes the place of blocks, made one after the other; it stands in the runs from then on.

    Attributes:
        linearised: The same with merged blocks in their unmerged form.
        proofs: Of merges.
        fits: Of blocks.
        refits: Of layers that are kept.
    """

    def __init__(self, network: Network, reconstruction: Reconstruction) -> None:
        self._network, self._reconstruction = network, reconstruction
        self.linearised: dict[Choice, nn.Module | None] = {}
        self.proofs: list[BlockProof] = []
        self.fits: dict[str, Fitted] = {}
        self.refits: dict[str, Fitted] = {}

    def make(self, choice: Choice) -> None:
        """Execute a choice."""
        network, runs = self._network, self._reconstruction.runs
        if choice.kind is Kind.KEEP:
            if (refitted := self._reconstruction.refit(choice)) is not None:
                self.refits[choice.key] = refitted
        elif choice.kind is Kind.IDENTITY:
            runs.done[choice] = self.linearised[choice] = None
        elif choice.kind is Kind.MERGE:
            convolution, unmerged = product(runs.working, choice), linearised_form(runs.working, choice)
            self.proofs.append(prove_block(unmerged, convolution))
            lowered = lowered_in(network, choice)
            runs.done[choice] = normed(network.module, lowered, to_module(convolution))
            self.linearised[choice] = normed(network.module, lowered, unmerged)
        else:
            self.fits[choice.key] = fitted = self._reconstruction.fit(choice, prior_of(network, choice))
            runs.done[choice], self.linearised[choice] = (to_module(fitted.convolution) for _ in range(2))


def _narrowed(network: Network, compressed: fx.GraphModule, kept: Kept | None) -> fx.GraphModule:
    """A network without what does not stay."""
    if not kept:
        return compressed
    whole = {group: range(group.channels) for group in network.channel_groups}
    try:  # all groups are told: one that stays whole may have become one with another
        return narrow(compressed, {**whole, **kept})
    except ValueError as error:
        raise ModelError(
            f"channels cannot be left out behind these blocks: {error}",
            hint="groups that a block joins when it is left out must keep the same channels",
        ) from error


def product(network: Network, choice: Choice) -> Convolution:
    """The convolution of a ``merge`` choice, in float64."""
    lowered = lowered_in(network, choice)
    if isinstance(lowered, ChainLowering):
        return folded(network.module, lowered.composed)
    return folded_region(network.module, _linear_form(network, choice))


def linearised_form(network: Network, choice: Choice) -> LinearisedBlock | LinearisedRegion:
    """What a ``merge`` choice merges, unmerged."""
    lowered = lowered_in(network, choice)
    if isinstance(lowered, ChainLowering):
        return LinearisedBlock(network.module, lowered.composed)
    return LinearisedRegion(network.module, _linear_form(network, choice))


def _linear_form(network: Network, choice: Choice) -> LinearForm:
    assert choice.block.region is not None
    form = Bookkeeping(network.module).linear_form(network.regions[choice.block.region])
    if form is None:
        raise ValueError(f"{choice.block} is not linear: it has no merge")
    return form


def execute_on(
    device: torch.device,
    network: Network,
    choices: Iterable[Choice],
    inputs: Sequence[Values],
    progress: Progress | None = None,
    strength: Strength | None = None,
    kept: Kept | None = None,
    memory: MemoryLimit | None = None,
) -> Compression:
    """Execute a plan as ``execute`` does, on a device; the network and all that is made of it end on the CPU.

    Raises:
        LayerMergeError: As there.
    """
    with placed(network.module, device):
        made = execute(network, choices, inputs, progress, strength, kept, memory)
        for module in (made.merged, made.linearised):
            move(module, CPU)
        return replace(made, fits=_on_cpu(made.fits), refits=_on_cpu(made.refits))


def _on_cpu(fits: Mapping[str, Fitted]) -> dict[str, Fitted]:
    return {key: replace(fitted, convolution=fitted.convolution.to(CPU)) for key, fitted in fits.items()}


def solved(equations: Equations, network: Network, choice: Choice, of: int = 0) -> Fitted:
    """The convolution of a ``fit`` choice, drawn to what remains of its block when the layers are dropped.

    Raises:
        ModelError: What was accumulated is not finite.
    """
    if not equations.finite:
        raise not_finite(choice)
    assert choice.geometry is not None
    return equations.solve(choice.geometry, prior_of(network, choice), of)


def prior_of(network: Network, choice: Choice) -> Convolution | None:
    """What remains of a block with skips inside when all its layers are dropped: where its fit is drawn to."""
    lowered = lowered_in(network, choice)
    assert lowered.geometry is not None
    if not isinstance(lowered, ChainLowering) or not lowered.composed.skips or lowered.pre_norm is not None:
        return None
    try:
        prior = folded(network.module, lowered.composed)
    except ValueError:
        return None  # layers outside of its skips change the shape: nothing to start from
    return admissible_prior(prior, lowered.geometry)
