"""Plans that a rule makes, without looking for better ones: an even cut of depth, and blocks merged one and all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.merging.reconstruction import PAPERS
from trt_layermerge.pipeline.measuring import importance_stage
from trt_layermerge.pipeline.solving import ChosenPlan
from trt_layermerge.progress import Reporter

from .bench import Bench
from .contender import Contender, Rung
from .planned import PlannedRung


@dataclass(frozen=True)
class EvenCut(Contender):
    """Residual branches dropped evenly over the depth; where there are none, layers that can be."""

    def rungs(self, bench: Bench) -> Iterator[Rung]:
        """One dropped, two, and so on."""
        network = bench.widest.network
        dropped = [one for one in choices_of(network) if one.kind is Kind.IDENTITY and one.block.region is None]
        spans = branches(bench)
        found = [one for one in dropped if (one.block.chain, one.block.start, one.block.end) in spans]
        found = found or [one for one in dropped if len(one.block) == 1 and one.reducible]
        for count in range(1, len(found) + 1):
            gone = [found[int((number + 0.5) * len(found) / count)] for number in range(count)]
            yield PlannedRung(f"even-cut-{count}", None, ChosenPlan(tuple(gone)), "merged", PAPERS)


@dataclass(frozen=True)
class WholeBlocks(Contender):
    """Residual blocks merged into one convolution each, those first that lose least (DepthShrinker, arXiv 2206.00843).

    Which blocks are merged the paper learns by masks on their activations; here the importance table ranks them. As
    there, a block is merged as a whole or not at all, and fine-tuning comes before merging.
    """

    def rungs(self, bench: Bench) -> Iterator[Rung]:
        """One merged, two, and so on."""
        session, whole = bench.widest, whole_blocks(bench)
        if not whole:
            return
        table = importance_stage(session, Reporter(), whole)
        lost = {one: row.loss_after - row.loss_before for one in whole if (row := table.get(one.key)) is not None}
        ranked: Sequence[Choice] = sorted(whole, key=lambda one: lost[one])
        for count in range(1, len(ranked) + 1):
            plan = ChosenPlan(tuple(ranked[:count]))
            yield PlannedRung(f"whole-blocks-{count}", None, plan, "linearised", PAPERS)


def whole_blocks(bench: Bench) -> list[Choice]:
    """Merges of residual blocks as a whole."""
    spans = branches(bench)
    return [
        one
        for one in choices_of(bench.widest.network)
        if one.kind is Kind.MERGE
        and (one.block.chain, one.block.start, one.block.end) in spans
        and len(one.kept) == len(one.block)
    ]


def branches(bench: Bench) -> set[tuple[int, int, int]]:
    """Chain, first and last tensor of what a skip leads around."""
    return {
        (number, skip.start, skip.end)
        for number, chain in enumerate(bench.widest.network.chains)
        for skip in chain.skips
    }
