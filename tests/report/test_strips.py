from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.report.strips import OUTSIDE, WIDTH, Segment, strips
from trt_layermerge.report.summary import BlockRow, ReplacedLayer

latencies = st.integers(0, 10**9)


@st.composite
def blocks(draw: st.DrawFn, known: bool = True) -> list[BlockRow]:
    def block() -> BlockRow:
        layers = draw(st.lists(latencies, min_size=1, max_size=4)) if known else []
        fate = draw(st.sampled_from(["keep", "merge", "fit", "identity"]))
        latency = draw(st.integers(-(10**6), 10**9))  # a region may save more than takes its place
        replaced = tuple(ReplacedLayer("conv", one, "layer") for one in layers)
        return BlockRow("0:0-1", len(layers) or 1, fate, fate, latency, 0.0, None, None, (), replaced)

    return [block() for _ in range(draw(st.integers(1, 6)))]


def adjoin(segments: Sequence[Segment]) -> bool:
    return all(one.x + one.width == pytest.approx(other.x, abs=1e-6) for one, other in pairwise(segments))


@given(blocks(), latencies, latencies)
def test_strips_are_to_one_scale_and_have_no_gaps(rows: list[BlockRow], before: int, after: int) -> None:
    original = sum(layer.latency_ns for row in rows for layer in row.replaced) + before
    planned = sum(max(row.latency_ns, 0) for row in rows) + after
    drawn = strips(rows, original, planned)
    longest = max(original, planned, 1)
    for segments, whole in ((drawn.before, original), (drawn.after, planned)):
        assert segments[0].x == 0 and adjoin(segments)
        assert segments[-1].x + segments[-1].width == pytest.approx(WIDTH * whole / longest, abs=1e-6)
    assert [one.width for one in drawn.after[: len(rows)]] == pytest.approx(
        [WIDTH * max(row.latency_ns, 0) / longest for row in rows]
    )
    assert (drawn.before[-1].fate == OUTSIDE) is (before > 0)


@given(blocks(), latencies)
def test_ribbons_lead_from_all_that_was_to_all_that_is(rows: list[BlockRow], planned: int) -> None:
    drawn = strips(rows, 10**9, planned)
    assert [one.fate for one in drawn.ribbons] == [row.fate for row in rows]
    assert all(one.top[1] == pytest.approx(other.top[0], abs=1e-6) for one, other in pairwise(drawn.ribbons))
    for ribbon, made in zip(drawn.ribbons, drawn.after, strict=False):
        assert ribbon.bottom == (made.x, made.x + made.width)


@given(blocks(known=False), st.integers(1, 10**9))
def test_an_original_of_unknown_layers_is_one_segment(rows: list[BlockRow], original: int) -> None:
    drawn = strips(rows, original, 5)
    assert drawn.ribbons == () and len(drawn.after) >= len(rows)
    assert [one.width for one in drawn.before] == pytest.approx([WIDTH * original / max(original, 5)])


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_the_scale_has_a_few_round_ticks_within_it(original: int, planned: int) -> None:
    ticks = strips([], original, planned).ticks
    assert 2 <= len(ticks) <= 8 and ticks[0] == (0, "0 ms")
    assert all(0 <= at <= 100 + 1e-6 for at, _ in ticks)
