"""What a choice leaves of its block: the rules of ``lower``, one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.lowering import Lowering, Shift, lower
from trt_layermerge.network.chain import Chain
from trt_layermerge.network.network import Network, trace

Make = Callable[..., Network]
ALL = Limits(99, bottleneck_activations=True)


def conv(i: int = 4, o: int = 4, k: int = 3) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2)


def merge(chain: Chain, start: int, end: int, *kept: int) -> Lowering:
    return lower(chain, Choice(Block(chain.index, start, end), Kind.MERGE, None, kept))


def drop(chain: Chain, start: int, end: int) -> Lowering:
    return lower(chain, Choice(Block(chain.index, start, end), Kind.IDENTITY, None))


class Late(nn.Module):
    """``act(b(y)) + y`` behind a layer, and one more."""

    def __init__(self, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = conv(), conv(), conv(), conv()
        self.acts = nn.ModuleList(act() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.acts[0](self.a(x))
        return self.acts[3](self.d(self.acts[2](self.c(self.acts[1](self.b(y)))) + y))


class PreNorm(nn.Module):
    """Two layers that read through group norms, with a skip around both, and a third."""

    def __init__(self, middle: int = 4) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(2, 4), nn.GroupNorm(2, middle), nn.GroupNorm(4, 4)])
        self.a, self.b, self.c = conv(o=middle), conv(middle), conv()

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.b(self.norms[1](self.a(self.norms[0](x))))
        return self.c(self.norms[2](y))


def prenormed(middle: int = 4) -> Chain:
    torch.manual_seed(0)
    (chain,) = trace("prenorm", PreNorm(middle).eval(), (4, 8, 8)).chains
    assert [layer.pre_norm is not None for layer in chain.layers] == [True, True, True]
    return chain


@given(data=st.data())
def test_every_skip_is_composed_or_beside_and_none_is_both(make: Make, data: st.DataObject) -> None:
    """Whatever is chosen: of the skips that end with the block or lie in it, each stands in one place."""
    spans = st.tuples(st.integers(0, 4), st.integers(1, 5)).filter(lambda span: span[0] < span[1])
    skips = data.draw(st.dictionaries(spans, st.sampled_from([None, "own"]), max_size=4))
    acts = {index: nn.ReLU() for index in range(1, 6) if data.draw(st.booleans())}
    network = make([conv() for _ in range(5)], {span: skip and conv(k=1) for span, skip in skips.items()}, acts, size=6)
    for choice in choices_of(network, ALL):
        chain, block = network.chains[choice.block.chain], choice.block
        lowered = lower(chain, choice)
        placed = [*lowered.composed.skips, *lowered.skips, *lowered.late_skips]
        concerned = [skip for skip in chain.skips if skip.end == block.end or skip.inside(block.start, block.end)]
        assert sorted((skip.start, skip.end, skip.add) for skip in placed) == sorted(
            (skip.start, skip.end, skip.add) for skip in concerned
        )
        assert all(
            skip.start <= block.start and skip.end == block.end for skip in (*lowered.skips, *lowered.late_skips)
        )
        assert (lowered.act is None) == (lowered.activation is None)
        assert (lowered.geometry, lowered.writes) == (choice.geometry, chain.tensor(block.end))
        assert lowered.reads == chain.tensor(block.start)


def test_an_added_activation_is_lowered_as_one_that_is_there(make: Make) -> None:
    """Rule 1: but for names of nodes that the original does not have; the skip around the block is late."""
    convs = [conv(4, 12, 1), conv(12, 12), conv(12, 4, 1), conv()]
    (chain,) = make(convs, {(0, 3): None}, {1: nn.ReLU6(), 2: nn.ReLU6()}).chains
    plain = lower(chain, Choice(Block(0, 0, 3), Kind.FIT, None))
    added = lower(chain, Choice(Block(0, 0, 3), Kind.FIT, None, activation="relu6"))
    assert (plain.activation, plain.skips, plain.composed.skips) == (None, (), chain.skips)
    assert (added.activation, added.act, added.skips) == ("relu6", chain.layers[1].act, ())
    assert [(skip.start, skip.late) for skip in added.late_skips] == [(0, True)]
    assert (plain.sums, added.sums) == (chain.layers[2].adds[-1], chain.layers[2].last)


def test_a_norm_before_the_block_stays_until_all_layers_are_dropped() -> None:
    """Rules 2 and 3, with the tensor that is read and the skip that reads the one before the norm."""
    chain = prenormed()
    pre_norm, (skip,) = chain.layers[0].pre_norm, chain.skips
    for kept in ((1, 2), (1,), (2,)):
        lowered = merge(chain, 0, 2, *kept)
        assert pre_norm is not None and (lowered.pre_norm, lowered.reads) == (pre_norm, pre_norm.output)
        assert (lowered.composed.skips, lowered.skips) == ((), (skip,))
    for lowered in (merge(chain, 0, 2), drop(chain, 0, 2)):
        assert (lowered.pre_norm, lowered.reads) == (None, chain.input)
        assert (lowered.composed.skips, lowered.skips) == ((skip,), ())


def test_nothing_is_composed_with_a_layer_that_is_kept(make: Make) -> None:
    """Rule 4: a skip around it is part of a merge and of a fit, and stays beside what is kept."""
    (chain,) = make([conv()], {(0, 1): None}, {1: nn.ReLU()}).chains
    for kind, beside in ((Kind.KEEP, True), (Kind.MERGE, False), (Kind.FIT, False)):
        lowered = lower(chain, Choice(Block(0, 0, 1), kind, None, () if kind is Kind.FIT else (1,)))
        assert (lowered.skips, lowered.composed.skips) == ((chain.skips, ()) if beside else ((), chain.skips))


def test_what_stays_beside_a_block_is_in_order_of_execution(make: Make) -> None:
    """Rule 5."""
    (chain,) = make([conv() for _ in range(4)], {(1, 4): None, (3, 4): None, (0, 4): conv(k=1)}).chains
    lowered, adds = merge(chain, 2, 4, 3, 4), chain.layers[3].adds
    assert [skip.start for skip in lowered.composed.skips] == [3]
    assert sorted(skip.start for skip in lowered.skips) == [0, 1] and lowered.late_skips == ()
    assert [adds.index(skip.add) for skip in lowered.skips] == sorted(adds.index(skip.add) for skip in lowered.skips)
    assert merge(chain, 0, 3, 1, 2, 3).skips == ()


def test_the_last_norm_between_two_kept_layers_moves_behind() -> None:
    """Rule 6."""
    chain = prenormed()
    assert merge(chain, 0, 2, 1, 2).post_norm == chain.layers[1].pre_norm
    assert merge(chain, 0, 2, 2).post_norm is None, "it stood before all that is kept"
    assert merge(chain, 0, 2, 1).post_norm is None, "what it was for is dropped"
    assert merge(chain, 1, 3, 2, 3).post_norm == chain.layers[2].pre_norm
    assert lower(chain, Choice(Block(0, 0, 2), Kind.FIT, None)).post_norm is None
    assert merge(prenormed(6), 0, 2, 1, 2).post_norm is None, "of other channels than the block's"


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.time = conv(), conv(), conv(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        shift = self.time(x.mean((2, 3)))[:, :, None, None]
        return self.c((self.b((self.a(x) + shift).relu()) + 2 * shift).relu())


def test_the_shifts_of_kept_layers_stay_and_a_fit_has_all() -> None:
    """Rule 7."""
    (chain,) = trace("shifted", Shifted().eval(), (4, 8, 8)).chains
    first, second, _ = (layer.shift for layer in chain.layers)
    assert first is not None and second is not None
    one, two = Shift(first, 1, 4), Shift(second, 2, 4)
    assert merge(chain, 0, 3, 1, 2, 3).shifts == (one, two)
    assert merge(chain, 0, 3, 2, 3).shifts == (two,)
    assert merge(chain, 2, 3, 3).shifts == drop(chain, 0, 2).shifts == ()
    fits = [lower(chain, Choice(Block(0, *ends), Kind.FIT, None)).shifts for ends in ((0, 3), (1, 3), (2, 3))]
    assert fits == [(one, two), (two,), ()]


@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU])
def test_a_dropped_branch_of_a_late_skip_leaves_the_skip(quick: Callable[..., Network], act: type[nn.Module]) -> None:
    """Rule 8: the activation is part of the branch, unless something of it is left."""
    (chain,) = quick(Late(act), (4, 8, 8)).chains
    gone = drop(chain, 1, 3)
    assert (gone.act, gone.skips, gone.late_skips, gone.shifts) == (None, (), (), ())
    assert (gone.reads, gone.writes) == (chain.tensor(1), chain.tensor(3))
    for lowered in (merge(chain, 1, 3, 3), drop(chain, 2, 3)):
        assert [skip.start for skip in lowered.late_skips] == [1]
    assert merge(chain, 1, 3, 3).act == chain.layers[2].act


def test_an_activation_that_does_nothing_to_a_dropped_block_goes(make: Make) -> None:
    """Rule 9: not where a skip is added to it, nor where something is left that it acts on."""
    (chain,) = make([conv() for _ in range(4)], {(1, 4): None}, {i: nn.ReLU() for i in range(1, 5)}).chains
    assert drop(chain, 1, 2).act is None and drop(chain, 1, 2).activation is None
    assert drop(chain, 2, 4).act == chain.layers[3].act and drop(chain, 2, 4).activation == "relu"
    assert merge(chain, 1, 2, 2).activation == "relu"
