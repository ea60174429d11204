"""What makes no problem is refused, and the message names the item or the layer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trt_layermerge.errors import ExitCode, InputError
from trt_layermerge.planning.problem import Item, Problem, tiling_fault

KEEP = Item(0, 0, 1, "keep 1", "keep", 10, 0.0)
NEXT = Item(0, 1, 2, "keep 2", "keep", 10, 0.0)
MERGE = Item(0, 0, 2, "merge", "merge", 15, -0.1)
OTHER = Item(1, 0, 1, "other", "fit", 5, 0.0)


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
