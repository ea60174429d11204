"""What a choice executes: the signatures whose latencies add up to its own. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.compose import front_kept, front_moved, outer_skips, shifted_layers
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.network.activations import NONNEGATIVE
from trt_layermerge.network.chain import Chain, Skip

IDEMPOTENT = ("relu", "relu6")
"""Activations that do nothing to their own output."""


@dataclass(frozen=True)
class Setting:
    """What all signatures of one profile have in common.

    Attributes:
        batch: Images at once.
        precision: ``fp32``, ``fp16`` or ``int8``.
    """

    batch: int
    precision: str = "fp32"


def signatures(chain: Chain, choice: Choice, setting: Setting) -> tuple[Signature, ...]:
    """The operations that a choice executes.

    A skip that is added to the block's result belongs to the block: its addition is part of the convolution's
    epilogue, and its own convolution, if it has one, is an operation more; so is a front that stays.
    """
    block, last = choice.block, chain.layers[choice.block.end - 1]
    arriving, moved = skips_executed(chain, choice), front_moved(chain, choice)
    result = Signature(
        setting.batch,
        chain.shape(block.start),
        choice.geometry,
        bias=choice.geometry is not None and (choice.kind is not Kind.KEEP or last.bias),
        residual=bool(arriving),
        precision=setting.precision,
        shift=bool(shifted_layers(chain, choice.kept)),
        group_norm=None if moved is None else moved.groups,
    )
    operations = [result]
    operations += [_plain_addition(chain, block.end, setting) for _ in arriving[1:]]
    if not redundant_activation(chain, choice):
        operations[-1] = replace(operations[-1], activation=last.activation)
    for skip in arriving:
        if skip.geometry is not None:
            shape = chain.shape(skip.start)
            operations.append(
                Signature(setting.batch, shape, skip.geometry, bias=skip.bias, precision=setting.precision)
            )
    if (front := front_kept(chain, choice)) is not None:
        shape, precision = chain.shape(block.start), setting.precision
        operations.append(
            Signature(
                setting.batch, shape, None, activation=front.activation, precision=precision, group_norm=front.groups
            )
        )
    return tuple(operation for operation in operations if not operation.empty)


def skips_executed(chain: Chain, choice: Choice) -> tuple[Skip, ...]:
    """The skips that stay beside a block: those from before it, and all of a layer that is kept as it is."""
    if choice.kind is Kind.KEEP:
        return tuple(skip for skip in chain.skips if skip.end == choice.block.end)
    return outer_skips(chain, choice.block, emptied=choice.emptied)


def redundant_activation(chain: Chain, choice: Choice) -> bool:
    """Whether the block's last activation would do nothing to the block's input, which is all that reaches it."""
    if choice.kind is not Kind.IDENTITY or outer_skips(chain, choice.block, emptied=True):
        return False
    before, activation = chain.activation(choice.block.start), chain.layers[choice.block.end - 1].activation
    return activation in IDEMPOTENT and (before == activation or (activation == "relu" and before in NONNEGATIVE))


def _plain_addition(chain: Chain, index: int, setting: Setting) -> Signature:
    return Signature(setting.batch, chain.shape(index), None, residual=True, precision=setting.precision)
