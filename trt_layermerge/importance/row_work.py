"""How much work rows of the one-shot estimators are beside each other, so that the time left can be told.

In multiply-accumulates of a convolution in float32. Two constants say how much longer others take; both were chosen
by the seconds in three tables of one ResNet-20, of which one took twice as long as another. There the time left is
within a factor of 1.9 of what it was; tables that did not choose them, and other networks, have not been looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.blocks.lowering import layers_of, lowered_in
from trt_layermerge.importance.estimators.base import EstimationRequest
from trt_layermerge.importance.oneshot import NORM_IMAGES, Portion, portions
from trt_layermerge.merging.patches import samples_needed, unknowns_of
from trt_layermerge.network.network import Network

SAMPLED_PASS = 4.0
"""A pass that samples patches and targets, on one core, in passes that are only evaluated."""

DOUBLE_PRODUCT = 2.75
"""A multiply-accumulate of the normal equations, in float64."""


def one_shot_work(request: EstimationRequest) -> Iterator[float]:
    """Of each choice, in the order in which their rows come."""
    network, samples = request.network, request.samples
    macs = _macs(network)
    whole, start, images = sum(macs.values()), None, _run_anew(request)
    for portion in portions(network, request.choices, request.max_kernel):
        more = _equations(portion, samples.calibration * whole)
        if (reads := lowered_in(network, portion.choices[0]).reads) != start:
            start, more = reads, more + images * whole  # what lies before the block is run once
        for choice in portion.choices:
            yield more + images * _behind(network, choice, macs)
            more = 0.0


def narrowed_work(request: EstimationRequest) -> Iterator[float]:
    """Of each width, in the order in which their rows come: the whole network is run, for a group once more."""
    whole, groups = sum(_macs(request.network).values()), set()
    for one in request.narrowed:
        sampled = 0.0 if one.group in groups else SAMPLED_PASS * request.samples.calibration
        groups.add(one.group)
        yield (_run_anew(request) + sampled) * whole


def _run_anew(request: EstimationRequest) -> int:
    """Images that a changed network is run on: to evaluate it, and before that to correct its norms."""
    return request.samples.held_out + min(request.samples.calibration, NORM_IMAGES)


def _equations(portion: Portion, whole_pass: float) -> float:
    """The equations of the blocks of a portion: a pass over the data, and the products of its patches."""
    if not portion.frames:
        return 0.0
    products = (
        samples_needed(frame.geometry) * frame.geometry.groups * unknowns_of(frame.geometry) ** 2
        for frame in portion.frames
    )
    return SAMPLED_PASS * whole_pass + DOUBLE_PRODUCT * sum(products)


def _macs(network: Network) -> dict[tuple[int, int], float]:
    """Multiply-accumulates of each layer for one image, by chain and number."""
    found = {}
    for chain in network.chains:
        for layer in chain.layers:
            _, height, width = layer.output_shape
            conv = layer.geometry
            taps = conv.in_channels // conv.groups * conv.kernel[0] * conv.kernel[1]
            found[chain.index, layer.index] = float(height * width * conv.out_channels * taps)
    return found


def _behind(network: Network, choice: Choice, macs: dict[tuple[int, int], float]) -> float:
    """What is run anew behind a block; chains are taken to lie one behind the other."""
    last = max(layers_of(network, choice.block))
    return sum(count for layer, count in macs.items() if layer > last)
