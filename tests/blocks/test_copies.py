"""Which merges a fit takes the place of, and which do less than it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor, nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.copies import without_copies
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.network.network import Network

Quick = Callable[[nn.Module, tuple[int, ...]], Network]


class Block(nn.Module):
    """A residual block whose shortcut changes the channels; with norms in front of its layers, or without."""

    def __init__(self, *, normed: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(2, channels) if normed else nn.Identity() for channels in (4, 6))
        self.a, self.b, self.shortcut = (nn.Conv2d(i, 6, k, padding=k // 2) for i, k in ((4, 3), (6, 3), (4, 1)))

        self.acts = nn.ModuleList([nn.ReLU(), nn.ReLU()])

    def forward(self, x: Tensor) -> Tensor:
        inside = self.a(self.acts[0](self.norms[0](x)))
        return self.b(self.acts[1](self.norms[1](inside))) + self.shortcut(x)


def merges(choices: tuple[Choice, ...]) -> list[tuple[str, tuple[int, ...]]]:
    return [(choice.key, choice.kept) for choice in choices if choice.kind is Kind.MERGE]


@pytest.mark.parametrize(("normed", "left"), [(True, [("0:0-2 merge 1x1 g1", ())]), (False, [])])
def test_a_shortcut_alone_is_left_where_a_fit_has_a_norm_in_front(
    quick: Quick, normed: bool, left: list[tuple[str, tuple[int, ...]]]
) -> None:
    network = quick(Block(normed=normed), (4, 8, 8))
    choices = choices_of(network)
    every = {(choice.place, choice.geometry) for choice in choices}
    found = without_copies(network, choices)
    fitted = {(choice.place, choice.geometry) for choice in found if choice.kind is Kind.FIT}
    assert [one for one in merges(found) if one[0] == "0:0-2 merge 1x1 g1"] == left
    assert all(not choice.kept for choice in found if choice.kind is Kind.MERGE and choice.geometry in
               {geometry for place, geometry in fitted if place == choice.place})  # fmt: skip
    assert {(choice.place, choice.geometry) for choice in found} == every, "no convolution is lost"


def test_a_merge_with_an_activation_is_dropped_for_its_own_fit_alone(quick: Quick) -> None:
    network = quick(nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)), (4, 8, 8))
    choices = choices_of(network, Limits(bottleneck_activations=True))
    whole = [choice for choice in choices if choice.block.end - choice.block.start == 2]
    activated = [choice for choice in whole if choice.activation and choice.kind is Kind.MERGE]
    plain_fits = [choice for choice in whole if not choice.activation and choice.kind is Kind.FIT]
    assert without_copies(network, [*activated, *plain_fits]) == (*activated, *plain_fits)
    assert merges(without_copies(network, whole)) == []
