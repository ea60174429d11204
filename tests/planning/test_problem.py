"""What makes no problem is refused, and the message names the item or the layer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trt_layermerge.errors import ExitCode, InputError
from trt_layermerge.planning.problem import Item, Problem, tiling_fault
from trt_layermerge.planning.widths import WidthGroup, WidthOption

KEEP = Item(0, 0, 1, "keep 1", "keep", 10, 0.0)
NEXT = Item(0, 1, 2, "keep 2", "keep", 10, 0.0)
MERGE = Item(0, 0, 2, "merge", "merge", 15, -0.1)
OTHER = Item(1, 0, 1, "other", "fit", 5, 0.0)
NARROW = replace(KEEP, widths=(("g", 8),))
GROUP = WidthGroup("g", (WidthOption(16, 0.0), WidthOption(8, -0.1)))


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (replace(MERGE, chain=1), "there are 1 chains"),
        (replace(MERGE, chain=-1), "there are 1 chains"),
        (replace(MERGE, start=-1), "layers 1 to 2"),
        (replace(MERGE, start=2), "layers 1 to 2"),
        (replace(MERGE, end=3), "layers 1 to 2"),
        (replace(MERGE, kind="fuse"), "kind 'fuse' is none of fit, identity, keep, merge"),
        (replace(MERGE, latency_ns=-1), "latency -1 ns"),
        (replace(MERGE, latency_ns=10**19), "eleven days"),
        (replace(MERGE, value=float("nan")), "value nan"),
        (replace(MERGE, value=float("-inf")), "value -inf"),
        (replace(MERGE, low_ns=16, high_ns=17), "not within its interval 16 to 17"),
        (replace(MERGE, breaks=(1,), parts=("x",)), "breaks .* and parts .* do not fit"),
        (replace(MERGE, breaks=(2,), parts=("x", "y")), "do not fit"),
        (replace(MERGE, parts=("x", "y")), "do not fit"),
        (replace(MERGE, key="keep 1"), r"key is also that of block \(0, 1\]"),
    ],
)
def test_a_wrong_item_is_named(item: Item, fault: str) -> None:
    with pytest.raises(InputError, match=fault) as error:
        Problem((2,), (KEEP, NEXT, item), fixed_ns=0, original_ns=20)
    assert repr(item.key) in error.value.message
    assert error.value.exit_code is ExitCode.BAD_INPUT


@pytest.mark.parametrize(
    ("groups", "fault"),
    [
        ((replace(GROUP, key="h"),), "item 'keep 1' .* there is no group 'g' of 8 channels"),
        ((GROUP, GROUP), "group 'g' is there twice"),
        ((WidthGroup("g", (WidthOption(8, 0.0), WidthOption(8, 0.0))),), r"its widths are \[8, 8\]"),
        ((WidthGroup("g", ()),), r"its widths are \[\]"),
        ((WidthGroup("g", (WidthOption(8, 0.0), WidthOption(0, 0.0))),), r"its widths are \[8, 0\]"),
        ((WidthGroup("g", (WidthOption(8, float("nan")),)),), "of 8 channels: not finite"),
        ((WidthGroup("g", (WidthOption(8, 0.0, 10**19),)),), "of 8 channels: .* absurdly large"),
    ],
)
def test_a_wrong_group_is_named(groups: tuple[WidthGroup, ...], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        Problem((1,), (NARROW,), 0, 20, groups=groups)


def test_an_item_names_a_group_once() -> None:
    twice = replace(NARROW, widths=(("g", 8), ("g", 16)))
    with pytest.raises(InputError, match=r"item 'keep 1' .* names a group twice"):
        Problem((1,), (twice,), 0, 20, groups=(GROUP,))


def test_a_choice_is_there_once_for_each_width() -> None:
    wide = replace(NARROW, widths=(("g", 16),))
    assert len(Problem((1,), (NARROW, wide), 0, 20, groups=(GROUP,)).items) == 2
    with pytest.raises(InputError, match="key is also that of"):
        Problem((1,), (NARROW, wide, replace(wide, latency_ns=5)), 0, 20, groups=(GROUP,))


@pytest.mark.parametrize(
    ("lengths", "items", "chain", "layer"),
    [
        ((2,), (), 0, 1),
        ((2,), (NEXT,), 0, 1),
        ((2,), (KEEP,), 0, 2),
        ((3,), (KEEP, MERGE), 0, 3),
        ((2, 1), (KEEP, NEXT), 1, 1),
    ],
)
def test_a_chain_without_a_tiling_is_named(
    lengths: tuple[int, ...], items: tuple[Item, ...], chain: int, layer: int
) -> None:
    with pytest.raises(InputError, match=rf"chain {chain} cannot be tiled: .* reaches layer {layer}\b"):
        Problem(lengths, items, fixed_ns=0, original_ns=20)


@pytest.mark.parametrize(
    ("lengths", "fixed_ns", "original_ns"),
    [((-1,), 0, 20), ((0,), 0, 20), ((), 0, 0), ((), 10**16, 20), ((), 0, 10**16)],
)
def test_wrong_totals_are_refused(lengths: tuple[int, ...], fixed_ns: int, original_ns: int) -> None:
    with pytest.raises(InputError):
        Problem(lengths, (), fixed_ns, original_ns)


def test_a_tiling_has_no_fault() -> None:
    assert tiling_fault([KEEP, NEXT, OTHER], (2, 1)) is None
    assert tiling_fault([MERGE]) is None


@pytest.mark.parametrize(
    ("items", "fault"),
    [
        ([NEXT], "does not follow layer 0"),
        ([KEEP, MERGE], "does not follow layer 1"),
        ([OTHER, MERGE], "is not in the order of the chains"),
        ([MERGE, OTHER, KEEP], "is not in the order of the chains"),
        ([replace(KEEP, chain=-1)], "is not in the order of the chains"),
        ([MERGE], "the chains end at layers [2], not [2, 1]"),
        ([KEEP, OTHER], "the chains end at layers [1, 1], not [2, 1]"),
    ],
)
def test_a_gap_an_overlap_or_a_missing_chain_is_a_fault(items: list[Item], fault: str) -> None:
    assert fault in str(tiling_fault(items, (2, 1)))
