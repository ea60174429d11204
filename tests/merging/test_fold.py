"""Folding norms keeps the function and leaves no norm that could have been folded."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx, nn

from trt_layermerge.merging.fold import fold_norms, norm_pairs
from trt_layermerge.merging.proof import prove_folds


@given(data=st.data())
def test_folding_keeps_the_function(networks, images, data):
    module = data.draw(networks).module.double()
    x, state = images(2, dtype=torch.float64), str(module.graph)
    pairs, proofs, folded = norm_pairs(module), prove_folds(module), fold_norms(module)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), module(x), rtol=1e-10, atol=1e-10)
    left = [sum(isinstance(part, nn.BatchNorm2d) for part in form.modules()) for form in (module, folded)]
    assert left[1] == left[0] - len(pairs)  # what follows no convolution stays
    assert [proof.block for proof in proofs] == [f"fold {conv.target}" for conv, _ in pairs]
    assert norm_pairs(module) == pairs and str(module.graph) == state, "the original was changed"


def test_a_network_in_training_mode_is_folded_as_it_evaluates(images):
    module = fx.symbolic_trace(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train())
    folded, x = fold_norms(module), images(2)
    assert module.training and not folded.training
    assert torch.allclose(folded(x), module.eval()(x), atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"groups": 2, "stride": 2, "output_padding": 1}])
def test_the_norm_of_a_transposed_convolution_is_folded_into_it(settings, images):
    norm = nn.BatchNorm2d(6)
    for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        nn.init.uniform_(values, 0.5, 2)
    module = fx.symbolic_trace(nn.Sequential(nn.ConvTranspose2d(4, 6, 3, **settings), norm).eval())
    folded, x = fold_norms(module), images(2)
    assert [type(part) for part in folded.children()] == [nn.ConvTranspose2d]
    torch.testing.assert_close(folded(x), module(x))
    assert [shown.block for shown in prove_folds(module)] == ["fold 0"]


def test_names_and_types_of_the_convolutions_stay():
    source = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, 2, 2, bias=False), nn.BatchNorm2d(6)).double()
    folded = fold_norms(fx.symbolic_trace(source))
    assert {name: value.dtype for name, value in folded.state_dict().items()} == {
        "0.weight": torch.float64,
        "0.bias": torch.float64,
    }


class Unfoldable(nn.Module):
    """A norm before its convolution, one of a convolution that others read, of one called twice, of uneven padding."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.twice = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x):
        y = self.read(self.norms[0](x))
        z = self.twice(self.norms[1](y) + y)
        return self.norms[2](self.twice(z))


def test_what_cannot_be_folded_stays(images):
    module = fx.symbolic_trace(Unfoldable().eval())
    folded, x = fold_norms(module), images(2)
    assert norm_pairs(module) == []
    assert torch.equal(folded(x), module(x))
    assert sum(isinstance(part, nn.BatchNorm2d) for part in folded.modules()) == 3
