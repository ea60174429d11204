"""Reconstructing the original's outputs, block after block, in a network that is being compressed.

A convolution sees the compressed network's own activations and aims at the original's, so that it makes up for what was
changed before it. That holds for layers that are kept, too: they cost nothing more when their weights are re-solved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.lowering import Lowering, input_of, layers_of, lower, lowered_in
from trt_layermerge.errors import ModelError
from trt_layermerge.merging.algebra import Convolution, from_modules
from trt_layermerge.merging.calibration import CalibrationRuns
from trt_layermerge.merging.columns import prior_columns
from trt_layermerge.merging.filter_lengths import filter_length, lengthening
from trt_layermerge.merging.fitting import Fitted, admissible_prior
from trt_layermerge.merging.heads import HEAD_RIDGE, heads_of, solve_head
from trt_layermerge.merging.linear import called, folded
from trt_layermerge.merging.norms import correct_norms, joined_batches, norm_inputs
from trt_layermerge.merging.patches import formed_part
from trt_layermerge.merging.readings import readings_of, write_corrected
from trt_layermerge.merging.responses import CLIPPED, Responses, fit_responses, predicted
from trt_layermerge.merging.ridge import RIDGE
from trt_layermerge.merging.width import Width
from trt_layermerge.network.chain import Layer, Unit
from trt_layermerge.network.cut import up_to
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.resources.memory import Room


@dataclass(frozen=True)
class Strength:
    """What the fits of a plan make use of; each costs time and no latency, and needs no labels.

    Attributes:
        activations: Fit what comes out behind a clipping activation, not the sum before it.
        ridge: Choose each ridge on patches that are not solved on.
        layers: Solve the layers that are kept again, behind the first change.
        head: Solve linear layers behind the convolutions again.
        trains: Draw those linear layers to what they were: training follows, which they have to bear (``HEAD_RIDGE``).
        norms: Correct statistics of batch norms. Layers that are re-solved have had it done for their own, and
            what is solved behind other norms has made up for them: it is for plans without the above.
    """

    activations: bool = True
    ridge: bool = True
    layers: bool = True
    head: bool = True
    trains: bool = False
    norms: bool = False


PLAIN = Strength(activations=False, ridge=False, layers=False, head=False)
"""Each fitted block by itself, for the sum before its activation; nothing else changes."""

PAPERS = replace(PLAIN, norms=True)
"""What plans without fits can make use of, where no training follows that would do the same."""


class Reconstruction:
    """Solves what is fitted and what is kept, for what the original makes there.

    Args:
        runs: The two networks, on calibration data.
        strength: What it makes use of.
    """

    def __init__(self, runs: CalibrationRuns, strength: Strength) -> None:
        self.runs, self.strength, self._module = runs, strength, runs.original.module

    def changes(self, choice: Choice) -> bool:
        """Whether there is anything to be done for a choice."""
        return choice.kind is not Kind.KEEP or (self.runs.has_data and (self.strength.layers or bool(self.runs.kept)))

    def fit(self, choice: Choice, prior: Convolution | None) -> Fitted:
        """The convolution that best takes a block's place in the compressed network so far.

        Raises:
            ModelError: The block's activations are not finite.
            TaskError: There is no calibration data.
        """
        assert choice.geometry is not None
        lowered = lowered_in(self.runs.original, choice)
        width = self.runs.width(choice.geometry, lowered.reads, lowered.writes)
        geometry, prior = width.geometry(choice.geometry), None if prior is None else width.part(prior)
        part = formed_part(geometry)
        if part is not None and part != geometry:
            # Few patches for its unknowns: it is drawn to what many patches say of a smaller kernel.
            prior = self._fit(choice, part, width, admissible_prior(prior, part))[0].convolution
        fitted, _ = self._fit(choice, geometry, width, prior)
        return replace(fitted, convolution=width.whole(fitted.convolution, choice.geometry))

    def refit(self, choice: Choice) -> Fitted | None:
        """Solve a kept layer again in the working copy; ``None`` where there is no need to, or no way."""
        chain = self.runs.original.chains[choice.block.chain]
        layer, aim = chain.layers[choice.block.end - 1], lower(chain, replace(choice, kind=Kind.FIT, kept=()))
        wanted = self.strength.layers or self.runs.narrowed(aim.reads)
        if not wanted or not self._refits(choice) or self.runs.agree_at(aim.sums):
            return None
        width = self.runs.width(layer.geometry, aim.reads, aim.writes)
        prior = width.part(folded(self._module, lower(chain, choice).composed))
        fitted, responses = self._fit(choice, width.geometry(layer.geometry), width, prior)
        _write_back(self.runs.working.module, layer, fitted.convolution, responses, width)
        return fitted

    def correct_norms(self, compressed: fx.GraphModule, linearised: fx.GraphModule) -> None:
        """Correct the statistics of the norms behind the first change.

        The linearised network, which computes the same, gets the same ones.
        """
        if not self.strength.norms or not self.runs.has_data:
            return
        names = [node.name for node in self._module.graph.nodes]
        changed = [input_of(self.runs.original, one) for one in self.runs.done]
        changed += [name for group in self.runs.kept for name in group.producers]
        first = min(map(names.index, changed))
        calls = [node for node in compressed.graph.nodes if node.op == "call_module" and node.name in names[first:]]
        norms = {str(node.target): compressed.get_submodule(str(node.target)) for node in calls}
        original = norm_inputs(self._module, joined_batches(self.runs.batches()))
        correct_norms(compressed, joined_batches(self.runs.batches()), original, norms)
        for name, norm in norms.items():
            if isinstance(norm, nn.BatchNorm2d):
                linearised.get_submodule(name).load_state_dict(norm.state_dict())

    def refit_heads(self, compressed: fx.GraphModule, linearised: fx.GraphModule) -> None:
        """Solve the linear layers of the compressed network again, each for the original's output of that layer.

        The linearised network, which computes the same, gets the same weights.
        """
        if not self.strength.head or not self.runs.has_data:
            return
        called_by = {node.name: node for node in compressed.graph.nodes}
        for head in heads_of(self._module):
            if head.name not in called_by:
                continue  # it lay in a region that was replaced
            linear = compressed.get_submodule(head.target)
            assert isinstance(linear, nn.Linear)
            (source,) = called_by[head.name].all_input_nodes  # a block may have taken the place of the original's
            student, teacher = up_to(compressed, [source.name]), self.runs.original_values.at(head.name)
            width = self.runs.width(Geometry(linear.in_features, linear.out_features, (1, 1)), head.source, head.name)
            with torch.no_grad():
                pairs = zip((student(*batch)[0] for batch in self.runs.batches()), teacher, strict=True)
                solve_head(linear, pairs, HEAD_RIDGE if self.strength.trains else RIDGE, width.inputs)
            linearised.get_submodule(head.target).load_state_dict(linear.state_dict())

    def _fit(
        self, choice: Choice, geometry: Geometry, width: Width, prior: Convolution | None
    ) -> tuple[Fitted, Responses]:
        responses = self.runs.responses(choice, geometry, width)
        if not all(part.isfinite().all() for part in (responses.patches, responses.wanted, responses.added)):
            raise not_finite(choice)
        activation = lowered_in(self.runs.original, choice).activation
        clip = CLIPPED.get(activation or "") if self.strength.activations else None
        added = choice.activation is not None
        return fit_responses(responses, geometry, prior, clip, self.strength.ridge, linear=added), responses

    def correct(self, choices: Iterable[Choice], room: Room) -> None:
        """Let those consumers of narrowed groups do without what goes that no choice of a plan solves anew.

        They are corrected for what they read in the original, and not for what changes before them.
        """
        if not self.runs.has_data:
            return
        solved = {name for choice in choices for name in self._solved_by(choice)}
        if self.strength.head:
            solved |= {head.name for head in heads_of(self._module)}
        left = {
            replace(group, consumers=rest): kept
            for group, kept in self.runs.kept.items()
            if (rest := tuple(name for name in group.consumers if name not in solved))
        }
        for group, readings in readings_of(self._module, list(left), list(self.runs.batches()), room.equations):
            for name, reading in readings.items():
                write_corrected(self.runs.working.module, name, reading, left[group])

    def _solved_by(self, choice: Choice) -> Iterator[str]:
        """The convolutions that a choice solves anew, or drops."""
        lowered, block = lowered_in(self.runs.original, choice), choice.block
        for unit in _units_beside(lowered):
            if self._solvable(unit):
                yield unit.first
        if choice.kind is Kind.MERGE:
            return
        for chain, number in layers_of(self.runs.original, block):
            layer = self.runs.original.chains[chain].layers[number - 1]
            if choice.kind is not Kind.KEEP or self._refits(choice):
                yield layer.first

    def _refits(self, choice: Choice) -> bool:
        """Whether a kept layer can be solved again.

        A skip around this one layer would be composed with a fit, and stays beside what is kept.
        """
        chain = self.runs.original.chains[choice.block.chain]
        around = lower(chain, replace(choice, kind=Kind.FIT, kept=())).composed.skips
        return self._solvable(chain.layers[choice.block.end - 1]) and not around

    def refit_beside(self, choice: Choice) -> None:
        """Solve units anew through which skips are added to a block's result, if they read channels that go."""
        if not self.runs.has_data:
            return
        nodes = {node.name: node for node in self._module.graph.nodes}
        for unit in _units_beside(lowered_in(self.runs.original, choice)):
            reads = nodes[unit.first].all_input_nodes[0].name
            if not self.runs.narrowed(reads) or not self._solvable(unit):
                continue
            conv, norm = (None if name is None else called(self._module, name) for name in (unit.conv, unit.norm))
            assert isinstance(conv, nn.Conv2d)
            width = self.runs.width(unit.geometry, reads, unit.last)
            prior = width.part(from_modules(conv, norm))
            responses = self.runs.unit_responses(unit, prior.geometry, width)
            fitted = fit_responses(responses, prior.geometry, prior, None, self.strength.ridge)
            _write_back(self.runs.working.module, unit, fitted.convolution, responses, width)

    def _solvable(self, layer: Unit) -> bool:
        """Whether a layer is a convolution whose weights can be set: its own, and a norm's with a scale and a shift."""
        if layer.conv is None or layer.pooling or layer.geometry.dilation != (1, 1):
            return False
        if layer.shift is not None and (layer.norm is not None or not isinstance(layer, Layer)):
            return False  # the norm's statistics are those of what is shifted
        nodes = self._module.graph.nodes
        calls = Counter(str(node.target) for node in nodes if node.op == "call_module")
        shared = any(calls[str(node.target)] > 1 for node in nodes if node.name in (layer.conv, layer.norm))
        plain = layer.norm is None or getattr(called(self._module, layer.norm), "weight", None) is not None
        return plain and not shared


def _units_beside(lowered: Lowering) -> tuple[Unit, ...]:
    """What skips lead through that are added to a block's result."""
    return tuple(unit for skip in (*lowered.skips, *lowered.late_skips) for unit in skip.units)


def not_finite(choice: Choice) -> ModelError:
    """The error for a block whose activations cannot be fitted."""
    return ModelError(
        f"block {choice.block} cannot be fitted: its activations on the calibration data are not finite",
        hint="check that the weights are sound and the data is scaled as in training; or keep this block",
    )


def _write_back(module: fx.GraphModule, layer: Unit, fitted: Convolution, responses: Responses, width: Width) -> None:
    """Give a layer new weights, those that are left of it.

    The convolution gets them as they are, or in front of a norm with filters no shorter than they were. The norm
    gets the statistics of what now reaches it, re-estimated, and a scale and shift that undo them and the lengths: its
    training mode then starts from what its evaluation mode computes.
    """
    assert layer.conv is not None
    conv, bias = called(module, layer.conv), fitted.bias
    assert isinstance(conv, nn.Conv2d)
    stay = width.outputs.to(bias.device)
    with torch.no_grad():
        if layer.norm is not None:
            scales = lengthening(filter_length(conv.weight), fitted.weight)
            fitted = replace(fitted, weight=fitted.weight * scales[:, None, None, None].to(fitted.weight))
            variance, mean = _statistics(replace(fitted, bias=torch.zeros_like(bias)), responses)
            norm = called(module, layer.norm)
            assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
            norm.running_mean[stay] = mean.to(norm.running_mean)
            norm.running_var[stay] = variance.to(norm.running_var)
            undone = (norm.running_var[stay].double() + norm.eps).sqrt() / scales
            norm.weight[stay] = undone.to(norm.weight)
            norm.bias[stay] = (bias + norm.running_mean[stay].double() / scales).to(norm.bias)
            bias = torch.zeros_like(bias)
        conv.weight.copy_(width.whole(fitted, layer.geometry).weight)
        if conv.bias is None and layer.norm is None:
            conv.bias = nn.Parameter(conv.weight.new_zeros(len(conv.weight)))
        if conv.bias is not None:
            conv.bias[stay] = bias.to(conv.bias)


def _statistics(convolution: Convolution, responses: Responses) -> tuple[Tensor, Tensor]:
    """Variance and mean of every output channel over the patches."""
    values = predicted(responses.patches, prior_columns(convolution, convolution.geometry))
    variance, mean = torch.var_mean(values, 1, correction=0)
    return variance.flatten(), mean.flatten()
