"""Fitting one convolution in its place in a network that is being compressed.

It sees the compressed network's own activations and aims at the original's, so that it makes up for what was changed
before it. That holds for layers that are kept, too: they cost nothing more when their weights are solved anew.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from trt_layermerge.blocks.bottleneck import as_seen
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.compose import inner_skips, late_skips, outer_skips
from trt_layermerge.errors import ModelError
from trt_layermerge.merging.algebra import Convolution
from trt_layermerge.merging.fitting import Fitted, prior_columns, within
from trt_layermerge.merging.heads import heads_of, solve_head
from trt_layermerge.merging.linear import called, folded
from trt_layermerge.merging.norms import estimate_norms
from trt_layermerge.merging.patches import at, formed_part, sample_positions, samples_by_batch, samples_kept, windows
from trt_layermerge.merging.responses import CLIPPED, Responses, fit_responses, predicted
from trt_layermerge.merging.rewrite import module_name, rewrite
from trt_layermerge.network.chain import Chain, Layer
from trt_layermerge.network.cut import up_to
from trt_layermerge.network.device import device_of, moved
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.inputs import Values, samples_in
from trt_layermerge.network.network import Network


@dataclass(frozen=True)
class Strength:
    """What the fits of a plan make use of; each costs time and no latency, and needs no labels.

    Attributes:
        activations: Fit what comes out behind a clipping activation, not the sum before it.
        ridge: Choose each ridge on patches that are not solved on.
        layers: Solve the layers that are kept anew, behind the first change.
        head: Solve linear layers behind the convolutions anew.
        norms: Estimate statistics of batch norms anew. Layers that are solved anew have had it done for their own, and
            what is solved behind other norms has made up for them: it is for plans without the above.
    """

    activations: bool = True
    ridge: bool = True
    layers: bool = True
    head: bool = True
    norms: bool = False


PLAIN = Strength(activations=False, ridge=False, layers=False, head=False)
"""Each fitted block by itself, for the sum before its activation; nothing else changes."""

PAPERS = replace(PLAIN, norms=True)
"""What plans without fits can make use of, where no training follows that would do the same."""


class InPlace:
    """The original, a copy of it that is being compressed, and the data that fits are solved on.

    Args:
        network: The original, in evaluation mode.
        inputs: Calibration batches, ``[batch, ...]`` for each input.
        strength: What fits make use of.
    """

    def __init__(self, network: Network, inputs: Sequence[Values], strength: Strength) -> None:
        self.original, self.strength = network, strength
        self._inputs, self._device = inputs, device_of(network.module)
        self.working = replace(network, module=_copy(network.module))

    def changes(self, choice: Choice) -> bool:
        """Whether there is anything to be done for a choice."""
        return choice.kind is not Kind.KEEP or (self.strength.layers and self._has_data)

    @property
    def _has_data(self) -> bool:
        """Whether there is anything to solve on: a plan without fits needs no data."""
        return any(map(samples_in, self._inputs))

    def _batches(self) -> Iterator[tuple[Tensor, ...]]:
        """The data where the network is, one batch at a time: all of it may be more than a GPU holds."""
        return (moved(batch, self._device) for batch in self._inputs)

    def fit(
        self, done: Mapping[Choice, nn.Module | None], choice: Choice, geometry: Geometry, prior: Convolution | None
    ) -> Fitted:
        """The convolution that best takes a block's place in the compressed network so far.

        Raises:
            ModelError: The block's activations are not finite.
            TaskError: There is no calibration data.
        """
        part = formed_part(geometry)
        if part is not None and part != geometry:
            # Few patches for its unknowns: it is drawn to what many patches say of a smaller kernel.
            inner = self._responses(done, choice, part)
            prior = self._fit(inner, choice, part, within(prior, part)).convolution
        return self._fit(self._responses(done, choice, geometry), choice, geometry, prior)

    def refit(self, done: Mapping[Choice, nn.Module | None], choice: Choice) -> Fitted | None:
        """Solve a kept layer anew in the working copy; ``None`` where there is no need to, or no way."""
        chain = self.original.chains[choice.block.chain]
        layer = chain.layers[choice.block.end - 1]
        if layer.conv is None or layer.pooling or layer.shift is not None:
            return None
        unusual = layer.geometry.dilation != (1, 1) or inner_skips(chain, choice.block)
        if unusual or self._shared(layer) or not self._plain_norm(layer):
            return None
        prior = folded(self.original.module, chain, choice.block, choice.kept)
        if not done or self._untouched(done, choice):
            return None
        responses = self._responses(done, choice, layer.geometry)
        fitted = self._fit(responses, choice, layer.geometry, prior)
        _write_back(self.working.module, layer, fitted.convolution, responses)
        return fitted

    def estimate_norms(self, done: Collection[Choice], compressed: fx.GraphModule, linearised: fx.GraphModule) -> None:
        """Estimate the statistics of the norms behind the first change anew.

        The linearised network, which computes the same, gets the same ones.
        """
        if not self.strength.norms or not self._has_data:
            return
        names = [node.name for node in self.original.module.graph.nodes]
        first = min(names.index(self.original.chains[one.block.chain].tensor(one.block.start)) for one in done)
        calls = [node for node in compressed.graph.nodes if node.op == "call_module" and node.name in names[first:]]
        norms = {str(node.target): compressed.get_submodule(str(node.target)) for node in calls}
        estimate_norms(compressed, self._batches(), norms.values())
        for name, norm in norms.items():
            if isinstance(norm, nn.BatchNorm2d):
                linearised.get_submodule(name).load_state_dict(norm.state_dict())

    def refit_linear(self, compressed: fx.GraphModule, linearised: fx.GraphModule) -> None:
        """Solve the linear layers of the compressed network anew, each for the original's output of that layer.

        The linearised network, which computes the same, gets the same weights.
        """
        if not self.strength.head or not self._has_data:
            return
        called_by = {node.name: node for node in compressed.graph.nodes}
        for head in heads_of(self.original.module):
            linear = compressed.get_submodule(head.target)
            assert isinstance(linear, nn.Linear)
            (source,) = called_by[head.name].all_input_nodes  # a block may have taken the place of the original's
            student = up_to(compressed, [source.name])
            teacher = up_to(self.original.module, [head.name])
            with torch.no_grad():
                solve_head(linear, ((student(*batch)[0], teacher(*batch)[0]) for batch in self._batches()))
            linearised.get_submodule(head.target).load_state_dict(linear.state_dict())

    def _fit(self, responses: Responses, choice: Choice, geometry: Geometry, prior: Convolution | None) -> Fitted:
        if not all(part.isfinite().all() for part in (responses.patches, responses.wanted, responses.added)):
            raise not_finite(choice)
        last = self.original.chains[choice.block.chain].layers[choice.block.end - 1]
        clip = CLIPPED.get(choice.activation or last.activation or "") if self.strength.activations else None
        added = choice.activation is not None
        return fit_responses(responses, geometry, prior, clip, self.strength.ridge, linear=added)

    def _untouched(self, done: Mapping[Choice, nn.Module | None], choice: Choice) -> bool:
        """Whether the compressed network computes just what the original does up to the end of a layer."""
        name = self.original.chains[choice.block.chain].layers[choice.block.end - 1].before_activation
        student, teacher = up_to(rewrite(self.working, done, share=True), [name]), up_to(self.original.module, [name])
        some = [values[:1] for values in next(batch for batch in self._batches() if samples_in(batch))]
        with torch.no_grad():
            return torch.equal(student(*some)[0], teacher(*some)[0])

    def _responses(self, done: Mapping[Choice, nn.Module | None], choice: Choice, geometry: Geometry) -> Responses:
        chain, groups = self.original.chains[choice.block.chain], geometry.groups
        marker = replace(choice, kind=Kind.FIT, geometry=geometry, kept=())
        marked = rewrite(self.working, {**done, marker: nn.Identity()}, share=True)
        student = up_to(marked, _around(marked, chain, marker))
        teacher = up_to(self.original.module, [chain.layers[choice.block.end - 1].before_activation])
        generator = torch.Generator().manual_seed(0)
        parts: list[tuple[Tensor, ...]] = []
        with torch.no_grad():
            counts = samples_by_batch(samples_kept(geometry), self._inputs)
            for batch, count in zip(self._batches(), counts, strict=True):
                x, *added = student(*batch)
                (target,) = teacher(*batch)
                positions = sample_positions(target.shape, count, generator)
                rows = at(windows(x, geometry), positions, groups)
                rows = torch.cat([rows, rows.new_ones(*rows.shape[:2], 1)], 2)
                total = sum(added) if added else torch.zeros_like(target)
                parts.append((rows, at(target, positions, groups), at(total, positions, groups)))
        return Responses(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))

    def _shared(self, layer: Layer) -> bool:
        """Whether the layer's modules are called elsewhere too."""
        graph, calls = self.original.module.graph, _calls(self.original.module)
        targets = [str(node.target) for node in graph.nodes if node.name in (layer.conv, layer.norm)]
        return any(calls[target] > 1 for target in targets)

    def _plain_norm(self, layer: Layer) -> bool:
        """Whether the layer's norm, if it has one, has a scale and a shift to be set."""
        return layer.norm is None or getattr(called(self.original.module, layer.norm), "weight", None) is not None


def not_finite(choice: Choice) -> ModelError:
    """The error for a block whose activations cannot be fitted."""
    return ModelError(
        f"block {choice.block} cannot be fitted: its activations on the calibration data are not finite",
        hint="check that the weights are sound and the data is scaled as in training; or keep this block",
    )


def _write_back(module: fx.GraphModule, layer: Layer, fitted: Convolution, responses: Responses) -> None:
    """Give a layer new weights.

    The convolution gets them as they are. A norm behind it gets the statistics of what now reaches it, estimated anew,
    and a scale and shift that undo them: its training mode then starts from what its evaluation mode computes.
    """
    assert layer.conv is not None
    conv, bias = called(module, layer.conv), fitted.bias
    assert isinstance(conv, nn.Conv2d)
    with torch.no_grad():
        conv.weight.copy_(fitted.weight)
        if layer.norm is not None:
            plain = replace(fitted, bias=torch.zeros_like(bias))
            variance, mean = _statistics(plain, responses)
            norm = called(module, layer.norm)
            assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_((norm.running_var.double() + norm.eps).sqrt())
            norm.bias.copy_(bias + norm.running_mean.double())
            bias = torch.zeros_like(bias)
        if conv.bias is not None:
            conv.bias.copy_(bias)
        elif layer.norm is None:
            conv.bias = nn.Parameter(bias.to(conv.weight))


def _statistics(convolution: Convolution, responses: Responses) -> tuple[Tensor, Tensor]:
    """Variance and mean of every output channel over the patches."""
    values = predicted(responses.patches, prior_columns(convolution, convolution.geometry))
    variance, mean = torch.var_mean(values, 1, correction=0)
    return variance.flatten(), mean.flatten()


def _calls(module: fx.GraphModule) -> Counter[str]:
    """How often each module is called."""
    return Counter(str(node.target) for node in module.graph.nodes if node.op == "call_module")


def _copy(module: fx.GraphModule) -> fx.GraphModule:
    return fx.GraphModule(copy.deepcopy(module), copy.deepcopy(module.graph)).eval()


def _around(marked: fx.GraphModule, chain: Chain, choice: Choice) -> list[str]:
    """Nodes of the block's input and of what is added to its result, in a network where it is marked."""
    name = module_name(choice.block)
    (node,) = (node for node in marked.graph.nodes if node.op == "call_module" and node.target == name)
    names, skips = [node.all_input_nodes[0].name], outer_skips(chain, choice.block)
    if choice.activation is not None:
        (node,) = node.users
        skips = late_skips(as_seen(chain, choice.place), choice.block)
    for _ in skips:
        (add,) = node.users
        names += [operand.name for operand in add.all_input_nodes if operand is not node]
        node = add
    return names
