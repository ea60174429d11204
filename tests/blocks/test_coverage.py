"""What can be replaced is what lies in a block of several layers, or in a region."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tests.network.written import Net, conv
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.coverage import convolutions, irreplaceable, replaceable
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.network.network import trace


def test_convolutions_in_branches_count_with_their_region_alone() -> None:
    def function(m, x):
        return m.d(torch.cat([F.relu(m.a(x)), F.relu(m.b(x))], 1))

    network = trace("net", Net(function, a=conv(k=1), b=conv(), d=conv(8)), (4, 8, 8))
    assert convolutions(network) == {"a", "b", "d"}
    assert replaceable(network, choices_of(network, Limits(regions=False))) == frozenset()
    assert replaceable(network, choices_of(network)) == {"a", "b", "d"}


def test_a_chain_of_one_layer_is_not_replaceable() -> None:
    network = trace("net", Net(lambda m, x: F.max_pool2d(m.a(x), 2), a=conv()), (4, 8, 8))
    choices = choices_of(network)
    assert convolutions(network) == {"a"} and not replaceable(network, choices)
    (reason,) = irreplaceable(network, choices, Limits()).values()
    assert "max pooling" in reason and reason.endswith("no region is around it")


def test_what_a_skip_leads_through_is_replaced_with_its_block() -> None:
    network = trace("net", Net(lambda m, x: m.a(x) + m.b(x), a=conv(), b=conv(k=1)), (4, 8, 8))
    assert replaceable(network, choices_of(network)) == {"a", "b"}


def test_a_transposed_convolution_counts_and_has_its_reason() -> None:
    up = torch.nn.ConvTranspose2d(4, 4, 2, 2)
    network = trace("net", Net(lambda m, x: m.b(m.up(m.a(x))), a=conv(), up=up, b=conv()), (4, 8, 8))
    choices = choices_of(network)
    assert convolutions(network) == {"a", "up", "b"}
    assert irreplaceable(network, choices, Limits())["up"].startswith("transposed")
