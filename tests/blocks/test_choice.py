from __future__ import annotations

from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.network.geometry import Geometry


def test_names_of_blocks_and_choices() -> None:
    block = Block(0, 3, 5)
    assert str(block) == "0:3-5" and len(block) == 2
    assert Choice(block, Kind.MERGE, Geometry(4, 4, (5, 3)), (4, 5)).key == "0:3-5 merge 5x3 g1"
    activated = Choice(block, Kind.FIT, Geometry(4, 4, (3, 3)), activation="leaky_relu(0.01)")
    assert activated.key == "0:3-5 fit 3x3 g1 +leaky_relu(0.01)" and activated.place == (block, "leaky_relu(0.01)")
    assert Choice(block, Kind.IDENTITY, None).key == "0:3-5 identity"


def test_blocks_are_in_order_of_chain_start_and_end() -> None:
    blocks = [Block(0, 0, 1), Block(0, 0, 2), Block(0, 1, 2), Block(1, 0, 1)]
    assert sorted(reversed(blocks)) == blocks
