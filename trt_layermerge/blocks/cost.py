"""What a choice executes: the signatures whose latencies add up to its own. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from trt_layermerge.blocks.bottleneck import as_seen
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.compose import (
    front_kept,
    front_moved,
    is_late_branch,
    late_skips,
    outer_skips,
    shifted_layers,
)
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
    chain = as_seen(chain, choice.place)
    setting = replace(setting, batch=setting.batch * chain.multiple)
    block, last = choice.block, chain.layers[choice.block.end - 1]
    arriving, moved = skips_executed(chain, choice), front_moved(chain, choice)
    kept = choice.kind is Kind.KEEP
    result = Signature(
        setting.batch,
        chain.shape(block.start),
        choice.geometry,
        bias=choice.geometry is not None and (last.bias if kept else True),
        residual=bool(arriving),
        precision=setting.precision,
        pooling=kept and last.pooling,
        shift=bool(shifted_layers(chain, choice.kept)),
        group_norm=None if moved is None else moved.groups,
    )
    operations = [result]
    operations += [_plain_addition(chain, block.end, setting) for _ in arriving[1:]]
    if not redundant_activation(chain, choice):
        operations[-1] = replace(operations[-1], activation=last.activation)
    late = () if drops_branch(chain, choice) else late_skips(chain, block)
    operations += [_plain_addition(chain, block.end, setting) for _ in late]
    for skip in (*arriving, *late):
        operations += _units_executed(chain, skip, setting)
    if (front := front_kept(chain, choice)) is not None:
        shape, precision = chain.shape(block.start), setting.precision
        operations.append(
            Signature(
                setting.batch, shape, None, activation=front.activation, precision=precision, group_norm=front.groups
            )
        )
    return tuple(operation for operation in operations if not operation.empty)


def _units_executed(chain: Chain, skip: Skip, setting: Setting) -> Iterator[Signature]:
    shape = chain.shape(skip.start)
    for unit in skip.units:
        operation = Signature(
            setting.batch, shape, unit.geometry, unit.bias, precision=setting.precision, pooling=unit.pooling
        )
        yield operation
        shape = operation.output_shape


def skips_executed(chain: Chain, choice: Choice) -> tuple[Skip, ...]:
    """The skips before the activation that stay beside a block.

    These are those from before it, and all of a layer that is kept as it is.
    """
    if choice.kind is Kind.KEEP:
        return tuple(skip for skip in chain.skips if skip.end == choice.block.end and not skip.late)
    return outer_skips(chain, choice.block, emptied=choice.emptied)


def redundant_activation(chain: Chain, choice: Choice) -> bool:
    """Whether the block's last activation is gone, or would do nothing to the block's input, all that reaches it."""
    if drops_branch(chain, choice):
        return True
    if choice.kind is not Kind.IDENTITY or outer_skips(chain, choice.block, emptied=True):
        return False
    before, activation = chain.activation(choice.block.start), chain.layers[choice.block.end - 1].activation
    return activation in IDEMPOTENT and (before == activation or (activation == "relu" and before in NONNEGATIVE))


def drops_branch(chain: Chain, choice: Choice) -> bool:
    """Whether a choice drops all that a late skip leads around, the last activation too, and leaves the skip alone."""
    return choice.kind is Kind.IDENTITY and is_late_branch(chain, choice.block)


def _plain_addition(chain: Chain, index: int, setting: Setting) -> Signature:
    return Signature(setting.batch, chain.shape(index), None, residual=True, precision=setting.precision)
