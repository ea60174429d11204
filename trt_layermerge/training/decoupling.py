"""Decoupling: what a plan removes fades away while the network trains, so that it merges without loss when it is done.

After "Efficient Layer Compression Without Pruning" (ELC; Wu, Zhu, Fang, Deng and Zhong, IEEE TIP 32, 2023). Its
abstract, which is all that we had, says: serial layers, nonlinear ones among them, are first *decoupled* by a module of
their own, and the decoupled network is then *losslessly* merged by an equivalent conversion of its parameters, nothing
being pruned. How the module works is our reading:

- An activation s becomes ``a x + (1 - a) s(x)`` with a gate ``a`` for each channel. The gate is learned, and never
  below what a schedule says, which ends at 1: then the layers around it are one linear map.
- Merging needs all zero padding at the input of a block. The border that this adds to the tensors inside is zero at
  first, as the original has it, and fades in by the same schedule.
- Where the plan drops a convolution (LayerMerge does, ELC does not), ``a x + (1 - a) f(x)`` fades it, too.

So training begins at the very function of the original network and ends at one that merging does not change.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from dataclasses import replace

from torch import Tensor, fx, nn
from torch.nn import functional as F

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.composition import Composition
from trt_layermerge.blocks.lowering import lower
from trt_layermerge.errors import UsageError
from trt_layermerge.merging.linear import LinearisedBlock, called
from trt_layermerge.merging.rewrite import rewrite
from trt_layermerge.network.chain import Unit
from trt_layermerge.network.network import Network
from trt_layermerge.training.gating import Gate, GatedActivation, gates_of


class DecoupledBlock(LinearisedBlock):
    """A block whose inner activations, dropped layers and inner padding fade.

    At share 0 it is the block of the original network, at share 1 the linearised block of the layers that stay; both in
    evaluation mode, for in training the statistics of its norms see the borders, too.

    Args:
        module: The network.
        composed: All layers of the block, and its skips.
        kept: Numbers of the layers that stay.
    """

    def __init__(self, module: fx.GraphModule, composed: Composition, kept: Collection[int]) -> None:
        super().__init__(module, composed)
        self.stays, self.share = replace(composed, kept=frozenset(kept)), 0.0
        self.branches = tuple(skip for skip in self.skips if self.stays.drops(skip))
        self.read = self.stays.tensors
        self.activations, self.gates = nn.ModuleDict(), nn.ModuleDict()
        for layer in composed.layers:
            index, channels = layer.index, layer.output_shape[0]
            if index < self.block.end and layer.act is not None:
                act = copy.deepcopy(called(module, layer.act))
                self.activations[str(index)] = act if self._in_branch(index) else GatedActivation(act, channels)
            if self._branch_ends(index) or (index not in self.stays.kept and not self._in_branch(index)):
                self.gates[str(index)] = Gate(channels)

    def fade(self, share: float) -> None:
        """Let everything that goes be gone to a share, 0..1."""
        self.share = share
        for gate in gates_of(self):
            gate.floor = share

    def write_back(self, module: fx.GraphModule) -> None:
        """Give the layers' weights and statistics to the network that the block was made of."""
        items: dict[str, tuple[Unit, ...]] = {str(layer.index): (layer,) for layer in self.composed.layers}
        items |= {f"skip{number}": skip.units for number, skip in enumerate(self.skips)}
        for name, units in items.items():
            nodes = [node for unit in units for node in (unit.conv, unit.norm) if node is not None]
            for node, part in zip(nodes, self.parts[name].children() if nodes else (), strict=True):
                called(module, node).load_state_dict(part.state_dict())

    def _tensor(self, index: int, tensors: dict[int, Tensor], shift: Tensor | None) -> Tensor:
        x = self._part(str(index), self.composed.chain.layers[index - 1].geometry, index - 1, index, tensors, shift)
        if str(index) in self.gates:
            # Of a branch nothing remains, of a layer its input.
            ends = self._branch_ends(index)
            x = self.gates[str(index)](0.0 if ends else self._part("", None, index - 1, index, tensors), x)
        x = self._with_skips(x, index, tensors, late=False)
        return x if index == self.block.end else self._inner(index, x, tensors)

    def _with_skips(self, x: Tensor, index: int, tensors: dict[int, Tensor], *, late: bool) -> Tensor:
        """What arrives at a layer before its activation, or behind it."""
        for number, skip in enumerate(self.skips):
            if (skip.end, skip.late) == (index, late):
                x = x + self._part(f"skip{number}", skip.geometry, skip.start, index, tensors)
        return x

    def _inner(self, index: int, x: Tensor, tensors: dict[int, Tensor]) -> Tensor:
        """The activation of a tensor inside the block, what is added behind it, and its border."""
        if str(index) in self.activations:
            x = self.activations[str(index)](x)
        x = self._with_skips(x, index, tensors, late=True)
        top, left, bottom, right = self.margins[index]
        if self.share >= 1 or not any(self.margins[index]):
            return x
        inside = x.new_ones(x.shape[2] - top - bottom, x.shape[3] - left - right)
        return x * F.pad(inside, (left, right, top, bottom), value=self.share)

    def _branch_ends(self, index: int) -> bool:
        return any(skip.end == index for skip in self.branches)

    def _in_branch(self, index: int) -> bool:
        """Whether tensor ``index`` lies on a branch that goes as a whole, and no skip that stays starts from it."""
        return index not in self.read


def decouple(network: Network, choices: Iterable[Choice]) -> fx.GraphModule:
    """A copy of a network in which everything that a plan removes can fade.

    Ensures: nothing has faded yet; in evaluation mode it computes what the network does.

    Args:
        network: The original.
        choices: The plan's, in any order.

    Raises:
        UsageError: The plan has fits, which no fading leads to, or adds activations, which would have to fade in; or
            it takes away group norms, or a branch with the activation behind it, which do not fade.
    """
    modules: dict[Choice, nn.Module | None] = {}
    for choice in choices:
        if choice.kind is Kind.FIT or choice.block.region is not None:
            raise UsageError(
                f"the plan has {choice.key}, and decoupling executes merges alone",
                hint="plan with --method depth, layermerge or layer-only",
            )
        if choice.activation is not None:
            raise UsageError(
                f"the plan adds an activation in {choice.key}, and decoupling only takes them away",
                hint="pass --decouple 0, or plan without --bottleneck-activations",
            )
        if choice.kind is not Kind.KEEP:
            chain, block = network.chains[choice.block.chain], choice.block
            # As a merge of all layers: nothing of them is gone yet, their shifts and the last activation neither.
            whole = replace(choice, kind=Kind.MERGE, kept=tuple(range(block.start + 1, block.end + 1)))
            before, after = lower(chain, whole), lower(chain, choice)
            inner = chain.layers[block.start + 1 : block.end]
            if before.pre_norm != after.pre_norm or any(layer.pre_norm is not None for layer in inner):
                raise _not_faded(choice, "a group norm")
            if before.late_skips != after.late_skips:
                raise _not_faded(choice, "a branch and the activation behind it")
            modules[whole] = DecoupledBlock(network.module, before.composed, choice.kept)
    return rewrite(network, modules)


def _not_faded(choice: Choice, what: str) -> UsageError:
    return UsageError(
        f"the plan takes away {what} with {choice.key}, which decoupling does not fade",
        hint="pass --decouple 0: merge, then fine-tune",
    )


def fade(module: nn.Module, share: float) -> None:
    """Let everything that goes be gone to a share, 0..1, in all blocks of a network that have such."""
    for part in module.modules():
        if isinstance(part, DecoupledBlock):
            part.fade(share)


def settled(network: Network, decoupled: fx.GraphModule) -> Network:
    """The network with the weights that its decoupled form has learned; merging it by the same plan loses nothing."""
    module = copy.deepcopy(network.module)
    # A merged block's own names are not the network's: they are passed over here.
    module.load_state_dict(decoupled.state_dict(), strict=False)
    for part in decoupled.modules():
        if isinstance(part, DecoupledBlock):
            part.write_back(module)
    return replace(network, module=module)
