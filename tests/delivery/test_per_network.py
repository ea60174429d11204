from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.delivery.per_network import PerNetwork

pairs = st.builds(PerNetwork, st.integers(), st.integers())


@given(pairs)
def test_order_and_names_say_the_same(pair: PerNetwork[int]) -> None:
    original, compressed = pair
    assert PerNetwork(**pair.named) == PerNetwork(original, compressed) == pair
    assert (pair.named["original"], pair.named["compressed"]) == (original, compressed)


@given(pairs)
def test_a_function_is_of_each(pair: PerNetwork[int]) -> None:
    assert list(pair.map(str)) == [str(value) for value in pair]
