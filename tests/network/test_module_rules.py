from __future__ import annotations

import pytest
import torch
from torch import nn

from trt_layermerge.network.module_rules import MODULE_RULES, Parameter, out_of_place

aten = torch.ops.aten


@pytest.mark.parametrize(
    ("written", "pure"),
    [
        (aten.relu_.default, aten.relu.default),
        (aten.add_.Tensor, aten.add.Tensor),
        (aten.mul_.Scalar, aten.mul.Scalar),
        (aten.dropout_.default, aten.dropout.default),
        (aten.relu.default, aten.relu.default),
        (len, len),
    ],
)
def test_nothing_is_written_in_place(written: object, pure: object) -> None:
    assert out_of_place(written) is pure


def test_rules_are_for_operators_that_do_not_write() -> None:
    assert all(out_of_place(target) is target for target in MODULE_RULES)


def test_a_computed_weight_is_no_layer() -> None:
    bias = Parameter("conv.bias", torch.zeros(4))
    assert MODULE_RULES[aten.conv2d.default](4, object(), bias) is None
    assert MODULE_RULES[aten.linear.default](2, object()) is None


def test_parameters_of_two_modules_make_no_layer() -> None:
    weight, bias = Parameter("a.weight", torch.zeros(4, 3, 1, 1)), Parameter("b.bias", torch.zeros(4))
    assert MODULE_RULES[aten.conv2d.default](4, weight, bias) is None
    assert MODULE_RULES[aten.conv2d.default](4, Parameter("a.kernel", nn.Parameter(weight.value))) is None
    call = MODULE_RULES[aten.conv2d.default](4, weight)
    assert call is not None and call.owner == "a" and isinstance(call.module, nn.Conv2d)


def test_a_filter_is_a_convolution_with_weights_that_are_not_trained() -> None:
    blur = Parameter("blur.filt", torch.rand(4, 1, 3, 3))
    call = MODULE_RULES[aten.conv2d.default](4, blur, None, [2, 2], [1, 1], [1, 1], 4)
    assert call is not None and call.owner is None and isinstance(call.module, nn.Conv2d)
    assert torch.equal(call.module.weight, blur.value) and not call.module.weight.requires_grad
    assert (call.module.stride, call.module.padding, call.module.groups) == ((2, 2), (1, 1), 4)


def test_a_pooling_has_the_stride_of_its_kernel_unless_told() -> None:
    rule = MODULE_RULES[aten.avg_pool2d.default]
    alone, full = rule(4, [2, 3]), rule(4, [3, 3], [2, 1], [1, 1], True, False, 5)
    assert alone is not None and full is not None
    assert (alone.module.stride, alone.module.count_include_pad) == ((2, 3), True)
    assert (full.module.stride, full.module.ceil_mode, full.module.divisor_override) == ((2, 1), True, 5)


@pytest.mark.parametrize(("dims", "kind"), [(2, nn.BatchNorm1d), (3, nn.BatchNorm1d), (4, nn.BatchNorm2d)])
def test_batch_norms_are_of_the_inputs_dimensions(dims: int, kind: type) -> None:
    mean, var = Parameter("n.running_mean", torch.zeros(4)), Parameter("n.running_var", torch.ones(4))
    rule = MODULE_RULES[aten.batch_norm.default]
    call = rule(dims, None, None, mean, var, False, 0.1, 1e-5)
    assert call is not None and type(call.module) is kind
    assert rule(dims, None, None, mean, var, True, 0.1, 1e-5) is None  # of the batch itself
    assert rule(dims, None, None, None, None, False, 0.1, 1e-5) is None
