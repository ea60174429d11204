"""What stays of a convolution, and what that is as a part of the whole."""

from __future__ import annotations

import torch

from trt_layermerge.merging.algebra import Convolution
from trt_layermerge.merging.width import Width
from trt_layermerge.network.geometry import Geometry


def test_the_whole_of_a_part_is_0_elsewhere_shifts_too() -> None:
    geometry = Geometry(4, 5, (3, 3), padding=(1, 1, 1, 1))
    generator = torch.Generator().manual_seed(0)
    weight, bias, carry = (torch.randn(5, *rest, generator=generator) for rest in ((4, 3, 3), (), (2,)))
    whole = Convolution(geometry, weight, bias, {3: carry})
    width = Width.of(geometry, torch.tensor([0, 2]), torch.tensor([1, 4]))
    part = width.part(whole)
    assert (part.geometry.in_channels, part.geometry.out_channels) == (2, 2)
    x, shift = torch.randn(3, 4, 6, 6, generator=generator), torch.randn(3, 2, 1, 1, generator=generator)
    read = x * torch.tensor([1.0, 0.0, 1.0, 0.0])[:, None, None]
    torch.testing.assert_close(part(x[:, [0, 2]], shift), whole(read, shift)[:, [1, 4]], rtol=1e-5, atol=1e-5)
    back = width.whole(part, geometry)(x, shift)
    torch.testing.assert_close(back[:, [1, 4]], whole(read, shift)[:, [1, 4]], rtol=1e-5, atol=1e-5)
    assert not back[:, [0, 2, 3]].any()
