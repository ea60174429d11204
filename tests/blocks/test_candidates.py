from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from trt_layermerge.blocks.candidates import blocks_of, choices_of, composed_geometry
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.lowering import lower
from trt_layermerge.network.chain import Chain
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.network import Network, load_network

Make = Callable[..., Network]


def conv(i: int = 4, o: int = 4, k: int = 3, **kwargs: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=kwargs.pop("padding", k // 2), **kwargs)


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[nn.Module], dict[tuple[int, int], nn.Module | None]]:
    """Up to five convolutions with nested, stacked or crossing skips, some with a projection of their own."""
    convs: list[nn.Module] = []
    shapes = [(4, 1)]
    for _ in range(draw(st.integers(1, 5))):
        channels, stride = shapes[-1]
        out, step, groups = (
            draw(st.sampled_from([4, 4, 8])),
            draw(st.sampled_from([1, 1, 2])),
            draw(st.sampled_from([1, 4])),
        )
        convs.append(conv(channels, out, draw(st.sampled_from([1, 3, 5])), stride=step, groups=groups))
        shapes.append((out, stride * step))
    pairs = list(combinations(range(len(shapes)), 2))
    skips: dict[tuple[int, int], nn.Module | None] = {}
    for start, end in draw(st.lists(st.sampled_from(pairs), max_size=3, unique=True)):
        step = shapes[end][1] // shapes[start][1]
        if shapes[start] == shapes[end] and draw(st.booleans()):
            skips[start, end] = None
        else:
            skips[start, end] = conv(shapes[start][0], shapes[end][0], draw(st.sampled_from([1, 1, 3])), stride=step)
    return convs, skips


anything = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@anything
@given(given=networks(), max_kernel=st.sampled_from([3, 5, 7, 9]))
def test_properties_of_all_choices(
    make: Make, given: tuple[list[nn.Module], dict[tuple[int, int], nn.Module | None]], max_kernel: int
) -> None:
    network = make(*given)
    choices = choices_of(network, Limits(max_kernel))
    assert len({choice.key for choice in choices}) == len(choices)
    assert choices == choices_of(network, Limits(max_kernel))
    kept_as_they_are = [choice.block for choice in choices if choice.kind is Kind.KEEP]
    assert kept_as_they_are == [
        Block(chain.index, index, index + 1) for chain in network.chains for index in range(len(chain))
    ]
    for choice in choices:
        _check(network.chains[choice.block.chain], choice, max_kernel)


def _check(chain: Chain, choice: Choice, max_kernel: int) -> None:
    block, geometry = choice.block, choice.geometry
    assert not any(skip.crosses(block.start, block.end) for skip in chain.skips)
    source, target = chain.shape(block.start), chain.shape(block.end)
    if geometry is None:
        assert choice.kind is Kind.IDENTITY and source == target
        return
    assert (geometry.in_channels, geometry.out_channels) == (source[0], target[0])
    assert geometry.output_size(source[1:]) == target[1:]
    if choice.kind is Kind.MERGE:
        assert composed_geometry(chain, block, choice.kept) == geometry
    if choice.kind is not Kind.KEEP:
        assert max(geometry.kernel) <= max_kernel
    if choice.kind is Kind.FIT:
        full = composed_geometry(chain, block, range(block.start + 1, block.end + 1))
        assert geometry.dilation == (1, 1) and geometry.stride == full.stride and geometry.groups == full.groups
        for axis in (0, 1):
            front, back = (full.padding[side] - geometry.padding[side] for side in (axis, axis + 2))
            assert full.kernel[axis] == geometry.kernel[axis] + front + back and abs(front - back) <= 1
            assert geometry.kernel[axis] % 2 == 1 or geometry.kernel[axis] == full.kernel[axis]


@anything
@given(given=networks(), max_kernel=st.sampled_from([3, 5, 7, 9]))
def test_merges_keep_the_largest_norm_of_all_subsets(
    make: Make, given: tuple[list[nn.Module], dict[tuple[int, int], nn.Module | None]], max_kernel: int
) -> None:
    network = make(*given)
    module = network.module
    norms = {
        layer.conv: float(module.get_submodule(layer.name).weight.detach().abs().sum()) for layer in network.layers
    }
    found = choices_of(network, Limits(max_kernel))
    for chain in network.chains:
        for block in blocks_of(chain, 12):
            best: dict[tuple[tuple[int, int], int], float] = {}
            for kept in _subsets(chain, block):
                geometry = composed_geometry(chain, block, kept)
                if max(geometry.kernel) <= max_kernel:
                    key = geometry.kernel, geometry.groups
                    best[key] = max(best.get(key, 0.0), sum(norms[chain.layers[i - 1].conv] for i in kept))
            ours = {}
            for choice in found:
                if choice.block == block and (choice.kind is Kind.MERGE or (choice.kind is Kind.KEEP and choice.kept)):
                    geometry = composed_geometry(chain, block, choice.kept)
                    if max(geometry.kernel) <= max_kernel:
                        total = sum(norms[chain.layers[i - 1].conv] for i in choice.kept)
                        key = geometry.kernel, geometry.groups
                        ours[key] = max(ours.get(key, 0.0), total)
                elif choice.block == block and choice.kind is Kind.IDENTITY:
                    ours.setdefault(((1, 1), chain.shape(block.start)[0]), 0.0)
            assert ours == pytest.approx(best)


def _subsets(chain: Chain, block: Block) -> list[tuple[int, ...]]:
    """All sets of layers that may be kept: what is dropped keeps the shape, or is in a branch dropped whole."""
    layers = tuple(range(block.start + 1, block.end + 1))
    skips = lower(chain, Choice(block, Kind.MERGE, None, layers)).composed.skips
    allowed = []
    for size in range(len(block) + 1):
        for kept in combinations(layers, size):
            gone = [skip for skip in skips if not set(kept) & set(range(skip.start + 1, skip.end + 1))]
            simple = [s for s in gone if not any(s.start < end < s.end for o in skips for end in (o.start, o.end))]
            if all(
                index in kept
                or chain.layers[index - 1].geometry.keeps_shape
                or any(skip.start < index <= skip.end for skip in simple)
                for index in layers
            ):
                allowed.append(kept)
    return allowed


def kinds(network: Network, limits: Limits | None = None) -> Counter[str]:
    return Counter(choice.kind for choice in choices_of(network, limits))


def test_resnet20() -> None:
    network = load_network("examples/fashion_mnist/model.py:resnet20")
    choices = choices_of(network)
    assert Counter(choice.kind for choice in choices) == {"keep": 19, "merge": 150, "fit": 188, "identity": 28}
    dropped = [str(choice.block) for choice in choices if choice.kind is Kind.IDENTITY]
    # Whole residual branches but those with a projection, runs of them, and any layer by itself.
    assert {"0:1-3", "0:1-7", "0:9-13", "0:15-19"} <= set(dropped) and "0:7-9" not in dropped


def test_limits() -> None:
    network = load_network("examples/fashion_mnist/model.py:resnet20")
    choices = choices_of(network, Limits(max_kernel=3, max_layers=2))
    assert max(len(choice.block) for choice in choices) == 2
    assert max(max(choice.geometry.kernel) for choice in choices if choice.geometry) == 3
    assert kinds(network, Limits(1, 1))["keep"] == 19  # a layer may always be kept, of whatever size


def test_blocks_beside_within_and_around_a_skip(make: Make) -> None:
    (chain,) = make([conv() for _ in range(4)], {(1, 3): None}).chains
    assert [(b.start, b.end) for b in blocks_of(chain, 12)] == [
        (0, 1), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3), (3, 4),
    ]  # fmt: skip
    assert max(len(block) for block in blocks_of(chain, 2)) == 2


@pytest.mark.parametrize("channels", [1, 4])
def test_a_projection_is_no_identity(make: Make, channels: int) -> None:
    projection = conv(channels, channels, 1, groups=channels)
    network = make([conv(channels, channels), conv(channels, channels)], {(0, 2): projection})
    by_key = {choice.key: choice for choice in choices_of(network)}
    assert "0:0-2 identity" not in by_key
    assert by_key[f"0:0-2 merge 1x1 g{channels}"].kept == ()
    assert "0:0-1 identity" in by_key  # half of its branch may go by itself


def test_a_dropped_branch_leaves_its_skip(make: Make) -> None:
    network = make([conv(4, 8, 3, stride=2), conv(8, 8)], {(0, 2): conv(4, 8, 1, stride=2)})
    merges = {c.key: c.kept for c in choices_of(network) if c.kind is Kind.MERGE and len(c.block) == 2}
    assert merges == {"0:0-2 merge 1x1 g1": (), "0:0-2 merge 3x3 g1": (1,), "0:0-2 merge 7x7 g1": (1, 2)}


def test_a_wide_projection_does_not_make_two_choices_of_one_name(make: Make) -> None:
    network = make([conv(4, 8), conv(8, 8)], {(0, 2): conv(4, 8, 5)})
    keys = [choice.key for choice in choices_of(network)]
    assert len(keys) == len(set(keys))
    (widest,) = [c for c in choices_of(network) if c.key == "0:0-2 merge 5x5 g1"]
    assert widest.kept == (1, 2)


def test_the_weight_of_a_projection_does_not_count(make: Make) -> None:
    projection = conv(4, 8, 1)
    with torch.no_grad():
        projection.weight.mul_(1e3)
    network = make([conv(), conv(4, 8), conv(8, 8)], {(1, 3): projection})
    kept = {c.key: c.kept for c in choices_of(network) if c.kind is Kind.MERGE and len(c.block) == 3}
    norms = [float(network.module.get_submodule(f"convs.{i}").weight.detach().abs().sum()) for i in range(3)]
    assert kept["0:0-3 merge 3x3 g1"] == ((2,) if norms[1] > norms[0] else (1,))


def fits(network: Network) -> list[str]:
    return [c.key for c in choices_of(network) if c.kind is Kind.FIT and len(c.block) == len(network.layers)]


def test_fits_of_an_even_kernel_are_odd_or_the_whole(make: Make) -> None:
    assert fits(make([conv(4, 8, 2, stride=2, padding=0), conv(8, 8, 1)])) == ["0:0-2 fit 2x2 g1"]
    # 3x3 with padding 1, then 2x2 with stride 2: of the padding of one pixel, a 3x3 leaves one side.
    network = make([conv(4, 8, 3), conv(8, 8, 2, stride=2, padding=0)])
    assert fits(network) == ["0:0-2 fit 3x3 g1", "0:0-2 fit 4x4 g1"]
    (small,) = [c for c in choices_of(network) if c.key == "0:0-2 fit 3x3 g1"]
    assert small.geometry == Geometry(4, 8, (3, 3), (2, 2), (1, 1, 0, 0))


def test_valid_padding_has_no_smaller_fits(make: Make) -> None:
    valid = make([conv(4, 4, 3, padding=0), conv(4, 4, 3, padding=0)])
    assert [c.key for c in choices_of(valid) if c.kind is Kind.FIT] == ["0:0-2 fit 5x5 g1"]


def test_depthwise_stays_depthwise_and_what_is_mixed_is_dense(make: Make) -> None:
    network = make([conv(4, 4, groups=4), conv(4, 4, groups=4), conv(4, 8, 1)])
    groups = {c.block: c.geometry.groups for c in choices_of(network) if c.kind is Kind.FIT and c.geometry}
    assert groups[Block(0, 0, 2)] == 4 and groups[Block(0, 0, 3)] == groups[Block(0, 1, 3)] == 1


def test_a_small_tensor_needs_no_large_kernel(make: Make) -> None:
    large, small = (make([conv() for _ in range(3)], size=size) for size in (16, 2))

    def kernels(network: Network, kind: Kind) -> set[int]:
        every = choices_of(network, Limits(max_kernel=7))
        return {one.geometry.kernel[0] for one in every if one.kind is kind and one.geometry is not None}

    assert kernels(large, Kind.MERGE) == {3, 5, 7} and kernels(large, Kind.FIT) == {1, 3, 5, 7}
    assert kernels(small, Kind.MERGE) == {3} and kernels(small, Kind.FIT) == {1, 3}
    # Of several sets of layers that now make the same kernel, the one with the largest norms: all of them.
    assert any(one.kept == (1, 2, 3) and one.geometry.kernel == (3, 3) for one in choices_of(small) if one.geometry)


def test_a_layer_on_one_pixel_is_a_1x1(make: Make) -> None:
    alone = [one for one in choices_of(make([conv(o=8)], size=1)) if one.kind is Kind.MERGE]
    assert [(one.kept, one.geometry.kernel) for one in alone if one.geometry] == [((1,), (1, 1))]
