"""What a choice executes: the signatures whose latencies add up to its own. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.blocks.lowering import lowered_in
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.network.chain import Skip
from trt_layermerge.network.network import Network


@dataclass(frozen=True)
class Setting:
    """What all signatures of one profile have in common.

    Attributes:
        batch: Images at once.
        precision: ``fp32``, ``fp16`` or ``int8``.
    """

    batch: int
    precision: str = "fp32"


def signatures(network: Network, choice: Choice, setting: Setting) -> tuple[Signature, ...]:
    """The operations that a choice executes.

    A skip that is added to the block's result belongs to the block: its addition is part of the convolution's
    epilogue, and its own convolution, if it has one, is an operation more; so is a pre-norm that stays.
    """
    chain, block, lowered = network.chains[choice.block.chain], choice.block, lowered_in(network, choice)
    if block.region is not None:
        region = network.regions[block.region]
        whole = Signature(
            setting.batch * region.multiple,
            region.input_shape,
            lowered.geometry,
            activation=lowered.activation,
            precision=setting.precision,
        )
        return () if whole.empty else (whole,)
    here = Signature(setting.batch * chain.multiple, chain.shape(block.start), None, precision=setting.precision)
    addition = replace(here, input_shape=chain.shape(block.end), residual=True)
    result = replace(
        here,
        convolution=lowered.geometry,
        bias=lowered.bias,
        residual=bool(lowered.skips),
        pooling=lowered.pooling,
        shift=bool(lowered.shifts),
        group_norm=None if lowered.post_norm is None else lowered.post_norm.groups,
    )
    operations = [result, *(addition for _ in lowered.skips[1:])]
    operations[-1] = replace(operations[-1], activation=lowered.activation)
    operations += [addition for _ in lowered.late_skips]
    for skip in (*lowered.skips, *lowered.late_skips):
        operations += _units_executed(replace(here, input_shape=chain.shape(skip.start)), skip)
    if lowered.pre_norm is not None:
        operations.append(replace(here, activation=lowered.pre_norm.activation, group_norm=lowered.pre_norm.groups))
    return tuple(operation for operation in operations if not operation.empty)


def _units_executed(before: Signature, skip: Skip) -> Iterator[Signature]:
    for unit in skip.units:
        before = replace(before, convolution=unit.geometry, bias=unit.bias, pooling=unit.pooling)
        yield before
        before = replace(before, input_shape=before.output_shape)
