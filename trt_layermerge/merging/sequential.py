"""Making the modules of a whole plan, block after block.

A fit sees the compressed network's own activations and aims at the original's outputs, so that it makes up for what the
blocks before it have changed (design, section 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.compose import front_kept, inner_skips, outer_skips
from trt_layermerge.errors import ModelError
from trt_layermerge.merging.algebra import Convolution, to_module
from trt_layermerge.merging.fitting import Fitted, NormalEquations, sample_positions, samples_by_batch
from trt_layermerge.merging.linear import LinearisedBlock, folded, normed
from trt_layermerge.merging.proof import BlockProof, prove_block
from trt_layermerge.merging.rewrite import module_name, rewrite
from trt_layermerge.network.chain import Chain
from trt_layermerge.network.cut import up_to
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.network import Network

Progress = Callable[[int, int, str], None]
"""Called with what is done, the total, and what is being worked on."""


@dataclass(frozen=True)
class Compression:
    """A network with a plan carried out.

    Attributes:
        merged: The compressed network.
        linearised: The same with merged blocks in their unmerged form; it computes the same.
        proofs: Of each merged block.
        fits: How well each fitted block could be fitted, by its choice's key.
    """

    merged: fx.GraphModule
    linearised: fx.GraphModule
    proofs: tuple[BlockProof, ...]
    fits: Mapping[str, Fitted]


def carry_out(
    network: Network, choices: Iterable[Choice], inputs: Sequence[Tensor], progress: Progress | None = None
) -> Compression:
    """Merge, fit and drop the blocks of a plan, and prove the merges.

    Args:
        network: The original, in evaluation mode; it is not changed.
        choices: The plan's, in any order.
        inputs: Calibration batches ``[batch, ...]``, for fits.
        progress: Told of every block.

    Raises:
        ModelError: A block to fit has activations that are not finite.
        ProofError: A merged block does not compute what its unmerged form does.
        TaskError: There is a block to fit, but no calibration data.
    """
    todo = sorted((choice for choice in choices if choice.kind is not Kind.KEEP), key=lambda choice: choice.block)
    merged: dict[Choice, nn.Module | None] = {}
    linearised: dict[Choice, nn.Module | None] = {}
    proofs, fits = [], {}
    for number, choice in enumerate(todo):
        if progress is not None:
            progress(number, len(todo), choice.key)
        chain = network.chains[choice.block.chain]
        if choice.kind is Kind.IDENTITY:
            merged[choice] = linearised[choice] = None
        elif choice.kind is Kind.MERGE:
            convolution = folded(network.module, chain, choice.block, choice.kept)
            unmerged = LinearisedBlock(network.module, chain, choice.block, choice.kept)
            proofs.append(prove_block(unmerged, convolution))
            merged[choice] = normed(network.module, chain, choice, to_module(convolution))
            linearised[choice] = normed(network.module, chain, choice, unmerged)
        else:
            fits[choice.key] = fitted = _fit_in_place(network, merged, choice, inputs)
            merged[choice], linearised[choice] = to_module(fitted.convolution), to_module(fitted.convolution)
    return Compression(rewrite(network, merged).eval(), rewrite(network, linearised).eval(), tuple(proofs), fits)


def solved(equations: NormalEquations, network: Network, choice: Choice) -> Fitted:
    """The convolution of a ``fit`` choice, drawn to what remains of its block when the layers are dropped.

    Raises:
        ModelError: What was accumulated is not finite.
    """
    if not equations.finite:
        raise ModelError(
            f"block {choice.block} cannot be fitted: its activations on the calibration data are not finite",
            hint="check that the weights are sound and the data is scaled as in training; or keep this block",
        )
    return equations.solve(_frame(choice), prior_of(network.module, network.chains[choice.block.chain], choice))


def prior_of(module: fx.GraphModule, chain: Chain, choice: Choice) -> Convolution | None:
    """What remains of a block with skips inside when all its layers are dropped: where its fit is drawn to."""
    if not inner_skips(chain, choice.block) or front_kept(chain, choice) is not None:
        return None
    frame = _frame(choice)
    try:
        prior = folded(module, chain, choice.block, ())
        both = prior.geometry.beside(frame)
    except ValueError:
        return None  # layers outside of its skips change the shape: nothing to start from
    return prior if (both.kernel, both.groups) == (frame.kernel, frame.groups) else None  # else it does not fit in


def _frame(choice: Choice) -> Geometry:
    assert choice.geometry is not None
    return choice.geometry


def _fit_in_place(
    network: Network, done: Mapping[Choice, nn.Module | None], choice: Choice, inputs: Sequence[Tensor]
) -> Fitted:
    """Fit a block between the compressed network so far and the original's result."""
    chain, geometry = network.chains[choice.block.chain], _frame(choice)
    marked = rewrite(network, {**done, choice: nn.Identity()}, share=True)
    student = up_to(marked, _around(marked, chain, choice))
    teacher = up_to(network.module, [chain.layers[choice.block.end - 1].before_activation])
    equations = NormalEquations(geometry)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for batch, count in zip(inputs, samples_by_batch(geometry, inputs), strict=True):
            x, *added = student(batch)
            target = teacher(batch)[0] - sum(added)
            equations.add(x, target, sample_positions(target.shape, count, generator))
    return solved(equations, network, choice)


def _around(marked: fx.GraphModule, chain: Chain, choice: Choice) -> list[str]:
    """Nodes of the block's input and of what is added to its result, in a network where it is marked."""
    name = module_name(choice.block)
    (node,) = (node for node in marked.graph.nodes if node.op == "call_module" and node.target == name)
    names = [node.all_input_nodes[0].name]
    for _ in outer_skips(chain, choice.block):
        (add,) = node.users
        names += [operand.name for operand in add.all_input_nodes if operand is not node]
        node = add
    return names
