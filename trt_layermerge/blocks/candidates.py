"""Enumerating the choices of a network.

Every block that crosses no skip at one end only is a candidate. For each of its composed kernels, ``merge`` keeps the
subset of convolutions with the largest L1 norm (LayerMerge, section 3.2); ``fit`` takes the odd kernels up to the
composed one, and the composed one where it is even; ``identity`` drops the block where that leaves the shape as it is.
At linear bottlenecks, every ``merge`` and ``fit`` may be there once more, with an activation behind it. A region is
fitted whole, whatever it computes; merged, where it is linear but for activations; dropped, where it has the shape of
its input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from trt_layermerge.blocks.bottleneck import addable
from trt_layermerge.blocks.choice import Block, Choice, Kind, Place
from trt_layermerge.blocks.composition import Composition
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.lowering import Lowering, lower
from trt_layermerge.network.bookkeeping import Bookkeeping
from trt_layermerge.network.chain import Chain, Skip
from trt_layermerge.network.geometry import Geometry, Pair
from trt_layermerge.network.network import Network


def choices_of(network: Network, limits: Limits | None = None) -> tuple[Choice, ...]:
    """All choices: of all chains, in order of chain, start and end, ``keep`` of every layer among them; of regions."""
    limits = limits or Limits()
    weights = _l1_norms(network)
    in_chains = tuple(
        choice
        for chain in network.chains
        for block in blocks_of(chain, limits.max_layers)
        for place in _places(chain, block, limits)
        for choice in _choices(network, place, limits, weights)
        if choice.activation is None or not choice.emptied
    )
    return (*in_chains, *_of_regions(network, limits)) if limits.regions else in_chains


def _of_regions(network: Network, limits: Limits) -> Iterator[Choice]:
    bookkeeping = Bookkeeping(network.module)
    for region in network.regions:
        if region.convolutions > limits.max_layers:
            continue
        block = Block.of(region)
        form = bookkeeping.linear_form(region)
        if form is not None and max(form.geometry.kernel) <= limits.max_kernel:
            yield Choice(block, Kind.MERGE, form.geometry)
        for geometry in fit_geometries(network, (block, None), limits.max_kernel):
            yield Choice(block, Kind.FIT, geometry)
        if region.keeps_shape:
            yield Choice(block, Kind.IDENTITY, None)


def blocks_of(chain: Chain, max_layers: int) -> Iterator[Block]:
    """The blocks of a chain that contain a skip whole, lie inside one, or have nothing to do with it.

    A block whose first layer has a pre-norm contains no skip from that layer's input: rule 3 of ``lowering.lower``.
    """
    for start in range(len(chain)):
        pre_normed = chain.layers[start].pre_norm is not None
        for end in range(start + 1, min(len(chain), start + max_layers) + 1):
            cut = any(pre_normed and skip.start == start and skip.end < end for skip in chain.skips)
            if not cut and not any(skip.crosses(start, end) for skip in chain.skips):
                yield Block(chain.index, start, end)


def composed_geometry(chain: Chain, block: Block, kept: tuple[int, ...]) -> Geometry:
    """The one convolution that the kept layers of a block and the skips inside it make, idle taps cropped."""
    return lower(chain, Choice(block, Kind.MERGE, None, kept)).composed.geometry


def _places(chain: Chain, block: Block, limits: Limits) -> Iterator[Place]:
    """A block that ends as it does, and where it may, with an activation behind it."""
    yield block, None
    if limits.bottleneck_activations and (activation := addable(chain, block)) is not None:
        yield block, activation


def _choices(network: Network, place: Place, limits: Limits, weights: dict[str, float]) -> Iterator[Choice]:
    block, activation = place
    chain = network.chains[block.chain]
    layers, first = tuple(range(block.start + 1, block.end + 1)), chain.layers[block.start].geometry
    reducible = all(layer.geometry.keeps_shape for layer in chain.layers[block.start : block.end])

    def choice(kind: Kind, geometry: Geometry | None = None, kept: tuple[int, ...] = ()) -> Choice:
        return Choice(block, kind, geometry, kept, reducible, activation)

    full, emptied = lower(chain, choice(Kind.MERGE, kept=layers)), lower(chain, choice(Kind.MERGE))
    plain = len(block) == 1 and not full.composed.skips
    late_branch = any(skip.start == block.start for skip in emptied.late_skips)
    if len(block) == 1:
        yield choice(Kind.KEEP, first, layers)
    for geometry, kept in _kept_sets(full.composed, emptied.composed, limits.max_kernel, weights):
        if not kept and late_branch:
            continue
        if not kept and _passes_on(emptied.composed):
            yield choice(Kind.IDENTITY)
        elif not (plain and kept == layers and geometry.kernel == first.extent):
            # Else that would be keeping the layer; on a small tensor it is the layer without its idle taps.
            yield choice(Kind.MERGE, geometry, kept)
    if late_branch and _leaves_one_skip(emptied):
        yield choice(Kind.IDENTITY)
    for geometry in fit_geometries(network, place, limits.max_kernel):
        if not (plain and geometry.kernel == first.extent):
            yield choice(Kind.FIT, geometry)


def _leaves_one_skip(emptied: Lowering) -> bool:
    """Whether the late skip around a block is a plain one, and no other skip from before the block ends in it."""
    return len(emptied.late_skips) == 1 and not emptied.late_skips[0].units and not emptied.skips


def fit_geometries(network: Network, place: Place, max_kernel: int) -> Iterator[Geometry]:
    """Convolutions that may be fitted: odd kernels in the middle of the composed one, and that itself.

    Of a region, of the one that sees as much as the region does.
    """
    block, activation = place
    if block.region is not None:
        region = network.regions[block.region]
        full = region.geometry.cropped(region.input_shape[1:])
    else:
        layers = tuple(range(block.start + 1, block.end + 1))
        merged = Choice(block, Kind.MERGE, None, layers, activation=activation)
        full = lower(network.chains[block.chain], merged).composed.geometry
    seen: set[Pair] = set()
    for size in (*range(1, max(full.kernel), 2), max(full.kernel)):
        part = full.middle(size)
        if part is not None and max(part.kernel) <= max_kernel and part.kernel not in seen:
            seen.add(part.kernel)
            yield part


@dataclass(frozen=True)
class _Tensor:
    """A tensor of a block from which the block goes on, or from which a skip is still to arrive.

    Attributes:
        index: Its number in the chain.
        geometry: Of all that was composed up to it.
        touched: Whether a layer behind it was kept.
    """

    index: int
    geometry: Geometry
    touched: bool = False


State = tuple[_Tensor, ...]
"""The tensors that matter to the rest of a block, the last one being where it goes on."""


def _kept_sets(
    full: Composition, emptied: Composition, max_kernel: int, weights: dict[str, float]
) -> list[tuple[Geometry, tuple[int, ...]]]:
    """For each composed kernel and grouping, the layers to keep: those with the largest sum of L1 norms.

    Args:
        full: Of all layers of the block.
        emptied: Of none of them.
        max_kernel: Largest kernel, per axis.
        weights: L1 norms by the layers' first nodes.
    """
    found = _largest_sets(full, max_kernel, weights)
    if emptied.skips == full.skips:
        return found
    # A skip beside the block joins it when nothing else is left.
    alone = _largest_sets(emptied, max_kernel, weights)
    return [item for item in found if item[1]] + [item for item in alone if not item[1]]


def _largest_sets(
    whole: Composition, max_kernel: int, weights: dict[str, float]
) -> list[tuple[Geometry, tuple[int, ...]]]:
    """The same for a block with these skips inside.

    A dynamic program over the tensors of the block; it composes as ``Composition.interpret`` does.
    """
    chain, block, skips = whole.chain, whole.block, whole.skips
    channels = chain.shape(block.start)[0]
    origin = _Tensor(block.start, Geometry(channels, channels, (1, 1), groups=channels))
    reached: dict[int, dict[State, tuple[float, tuple[int, ...]]]] = {block.start: {(origin,): (0.0, ())}}
    for index in range(block.start, block.end):
        for state, (norm, kept) in reached.pop(index, {}).items():
            for target, own in _moves(chain, skips, state[-1]):
                grown = own is not None and own.touched
                arrived = _arrive(skips, state, target, own)
                total = norm + (weights[chain.layers[index].first] if grown else 0.0)
                best = reached.setdefault(target, {})
                if arrived not in best or total > best[arrived][0]:
                    best[arrived] = total, (*kept, target) if grown else kept
    largest: dict[tuple[Pair, int], tuple[float, Geometry, tuple[int, ...]]] = {}
    for (*_, last), (norm, kept) in reached.get(block.end, {}).items():
        geometry = last.geometry.cropped(chain.shape(block.start)[1:])
        if max(geometry.kernel) > max_kernel:
            continue  # only here: what a part of the block needs may be idle in the whole
        key = geometry.kernel, geometry.groups
        if key not in largest or norm > largest[key][0]:
            largest[key] = norm, geometry, kept
    return [(geometry, kept) for _, geometry, kept in largest.values()]


def _moves(chain: Chain, skips: tuple[Skip, ...], tensor: _Tensor) -> Iterator[tuple[int, _Tensor | None]]:
    """How a block may go on from a tensor: where to, and with what beside the skips that arrive there.

    One may keep the next layer, drop it where that keeps the shape, or drop the whole branch that a skip leads around,
    unless another skip starts or ends inside of the branch.
    """
    index, layer = tensor.index, chain.layers[tensor.index].geometry
    yield index + 1, _Tensor(index + 1, tensor.geometry.then(layer), touched=True)
    if layer.keeps_shape:
        yield index + 1, _Tensor(index + 1, tensor.geometry)
    for skip in skips:
        inside = range(skip.start + 1, skip.end)
        if skip.start == index and not any(other.start in inside or other.end in inside for other in skips):
            yield skip.end, None


def _arrive(skips: tuple[Skip, ...], state: State, target: int, own: _Tensor | None) -> State:
    """The state at tensor ``target``, all skips that end there added."""
    touched = own is not None and own.touched
    state = tuple(replace(tensor, touched=tensor.touched or touched) for tensor in state)
    tensors = {tensor.index: tensor for tensor in state}
    arriving = [skip for skip in skips if skip.end == target]
    dropped = own is None or not all(tensors[skip.start].touched for skip in arriving)
    total = None if own is None or dropped else own.geometry
    for skip in arriving:
        start = tensors[skip.start].geometry
        term = start if skip.geometry is None else start.then(skip.geometry)
        total = term if total is None else total.beside(term)
    assert total is not None
    needed = {skip.start for skip in skips if skip.end > target}
    return (*(tensor for tensor in state if tensor.index in needed), _Tensor(target, total))


@dataclass(frozen=True)
class _Passing:
    """A map, of which one only wants to know whether it is the identity."""

    identity: bool

    def then(self, second: _Passing) -> _Passing:
        return _Passing(self.identity and second.identity)

    def beside(self, other: _Passing) -> _Passing:
        return _Passing(False)


def _passes_on(emptied: Composition) -> bool:
    """Whether a block with all its layers dropped is the identity: no skip of it has a convolution of its own."""
    other = _Passing(False)
    result = emptied.interpret(identity=lambda _: _Passing(True), layer=lambda _: other, skip=lambda _: other)
    return result.identity


def _l1_norms(network: Network) -> dict[str, float]:
    """L1 norm of the weights of every layer, by its first node."""
    norms = {}
    for layer in network.layers:
        module = network.module.get_submodule(layer.name)
        weight = module.weight if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)) else None
        passing = float(layer.geometry.out_channels)  # of averages: the weights of a channel add up to 1
        norms[layer.first] = passing if weight is None else float(weight.detach().abs().sum())
    return norms
