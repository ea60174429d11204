"""The proof that a merge is right: the unmerged form and the merged one compute the same function.

Each block is compared in float64 on random input, the whole network in float32. A difference above the tolerance
raises and names the block. Linearising itself is not exact and not claimed to be: importance measures it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from trt_layermerge.errors import ProofError
from trt_layermerge.merging.algebra import Convolution
from trt_layermerge.merging.fold import norm_pairs, with_norm
from trt_layermerge.merging.linear import LinearisedBlock
from trt_layermerge.merging.linear_region import LinearisedRegion
from trt_layermerge.network.inputs import Values, as_tuple

BLOCK_TOLERANCE = 1e-10
NETWORK_TOLERANCE = 1e-4


@dataclass(frozen=True)
class BlockProof:
    """One block's comparison.

    Attributes:
        block: Which one.
        error: Largest difference over the largest output, float64.
    """

    block: str
    error: float


@dataclass(frozen=True)
class Proof:
    """What was shown.

    Attributes:
        blocks: Merged blocks against their linearised form, and folded norms against theirs.
        end_to_end: Largest difference of an output of the two networks over its largest value, float32.
        samples: Number of inputs of the end-to-end comparison.
    """

    blocks: tuple[BlockProof, ...]
    end_to_end: float
    samples: int

    @property
    def worst_block(self) -> float:
        """The largest error of a block; 0 where there was nothing to merge."""
        return max((block.error for block in self.blocks), default=0.0)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value; infinite where either is not finite."""
    if not (actual.isfinite().all() and expected.isfinite().all()):
        return float("inf")
    scale = expected.abs().max().clamp_min(torch.finfo(expected.dtype).tiny)
    return float((actual - expected).abs().max() / scale)


def prove_block(unmerged: LinearisedBlock | LinearisedRegion, merged: Convolution) -> BlockProof:
    """Compare a linearised block with its merged convolution in float64.

    Raises:
        ProofError: They differ by more than 1e-10.
    """
    exact = copy.deepcopy(unmerged).double().eval()
    given = [_noise((2, *shape), seed).to(merged.weight.device) for seed, shape in enumerate(unmerged.shapes)]
    with torch.no_grad():
        return _proved(f"block {unmerged.block}", merged.to(torch.float64)(*given), exact(*given))


def prove_folds(module: fx.GraphModule) -> tuple[BlockProof, ...]:
    """Compare every convolution followed by a norm with the one that both fold into, in float64.

    Raises:
        ProofError: One of them differs by more than 1e-10.
    """
    proofs = []
    for conv_node, norm_node in norm_pairs(module):
        conv = copy.deepcopy(module.get_submodule(str(conv_node.target))).double()
        norm = copy.deepcopy(module.get_submodule(str(norm_node.target))).double().eval()
        assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
        # Any input size shows the fold; this one has border and inside for every kernel.
        extent = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        x = _noise((2, conv.in_channels, 2 * extent[0] + 1, 2 * extent[1] + 1)).to(conv.weight.device)
        with torch.no_grad():
            proofs.append(_proved(f"fold {conv_node.target}", with_norm(conv, norm)(x), norm(conv(x))))
    return tuple(proofs)


def prove_network(unmerged: nn.Module, merged: nn.Module, inputs: Values, blocks: Iterable[BlockProof] = ()) -> Proof:
    """Compare two networks end to end in float32, in evaluation mode, each output on its own scale.

    Args:
        unmerged: What is to be computed.
        merged: What computes it.
        inputs: ``[samples, ...]``, for each input of the networks.
        blocks: Proofs of the parts, to go with this one.

    Raises:
        ProofError: They differ by more than 1e-4.
    """
    unmerged.eval()
    merged.eval()
    given = as_tuple(inputs)
    with torch.no_grad():
        pairs = zip(as_tuple(merged(*given)), as_tuple(unmerged(*given)), strict=True)
        error = max(relative_error(actual, expected) for actual, expected in pairs)
    if error > NETWORK_TOLERANCE:
        raise ProofError(
            f"the merged network differs from its unmerged form by {error:.1e} of an output's largest value "
            f"(allowed: {NETWORK_TOLERANCE:.0e}), although each block agrees",
            hint="weights of very different size lose digits in float32; please report this with the plan file",
        )
    return Proof(tuple(blocks), error, len(given[0]))


def _proved(name: str, actual: Tensor, expected: Tensor) -> BlockProof:
    error = relative_error(actual, expected) if actual.shape == expected.shape else float("inf")
    if error > BLOCK_TOLERANCE:
        shapes = "" if actual.shape == expected.shape else f", shapes {list(actual.shape)} and {list(expected.shape)}"
        raise ProofError(
            f"{name}: merged and unmerged form differ by {error:.1e} (allowed: {BLOCK_TOLERANCE:.0e}{shapes})",
            hint="nothing was written; please report this with the plan file",
        )
    return BlockProof(name, error)


def _noise(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
