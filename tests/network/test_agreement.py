"""What mixes the samples of a batch is refused, and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network.written import conv, found
from trt_layermerge.errors import ExitCode, ModelError


def centred(x: Tensor) -> Tensor:
    return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)


def without(**kwargs: Any) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(4, track_running_stats=False, **kwargs)


MIXING: dict[str, tuple[Callable[[Any, Tensor], Tensor], nn.Module, str]] = {
    "no running statistics": (lambda m, x: m.b(m.n(m.a(x))), without(), "from batch_norm in n on"),
    "no momentum either": (lambda m, x: m.b(m.n(m.a(x))), without(momentum=None), "from batch_norm in n on"),
    "no weights either": (lambda m, x: m.b(m.n(m.a(x))), without(affine=False), "from batch_norm in n on"),
    "a function": (
        lambda m, x: m.b(F.batch_norm(m.a(x), None, None, training=True)),
        nn.Identity(),
        "from batch_norm in its forward() on",
    ),
    "statistics that are not used": (
        lambda m, x: F.batch_norm(m.a(x), m.n.running_mean.clone(), m.n.running_var.clone(), training=True),
        nn.BatchNorm2d(4),
        "from batch_norm in its forward() on",
    ),
    "of vectors": (
        lambda m, x: m.n(m.a(x).mean((2, 3))),
        nn.BatchNorm1d(4, track_running_stats=False),
        "from batch_norm in n on",
    ),
    "written out": (lambda m, x: m.b(centred(m.a(x))), nn.Identity(), "from sub in its forward() on"),
    "over the batch": (lambda m, x: m.b(m.a(x)).softmax(0), nn.Identity(), "from softmax in its forward() on"),
    "rolled": (lambda m, x: m.b(m.a(x).roll(1, 0)), nn.Identity(), "from roll in its forward() on"),
    "one result for all": (lambda m, x: m.b(m.a(x)).mean(0), nn.Identity(), "from mean in its forward() on"),
}


@pytest.mark.parametrize(("forward", "norm", "where"), MIXING.values(), ids=MIXING.keys())
def test_samples_that_depend_on_each_other_are_refused(
    forward: Callable[[Any, Tensor], Tensor], norm: nn.Module, where: str
) -> None:
    torch.manual_seed(0)
    with pytest.raises(ModelError, match="does not compute each sample of a batch by itself") as caught:
        found(forward, a=conv(), b=conv(), n=norm)
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    assert where in str(caught.value) and "running statistics" in str(caught.value)


@pytest.mark.parametrize(
    ("forward", "norm"),
    [
        (lambda m, x: m.b(m.n(m.a(x))), nn.BatchNorm2d(4, momentum=None)),
        (lambda m, x: m.b(m.n(m.a(x))), nn.InstanceNorm2d(4)),
        (lambda m, x: m.b(m.n(m.a(x))), nn.InstanceNorm2d(4, affine=True, track_running_stats=True)),
        (lambda m, x: m.b(m.n(m.a(x))), nn.GroupNorm(2, 4)),
        (  # the statistics of one sample, spelt as a batch norm
            lambda m, x: m.b(F.batch_norm(m.a(x).reshape(1, -1, 8, 8), None, None, training=True).reshape(-1, 4, 8, 8)),
            nn.Identity(),
        ),
    ],
)
def test_statistics_of_each_sample_are_its_own(forward: Callable[[Any, Tensor], Tensor], norm: nn.Module) -> None:
    assert found(forward, a=conv(), b=conv(), n=norm).chains


def test_rounding_that_depends_on_the_batch_is_no_mixing() -> None:
    """Kernels for one sample and for two round differently, and deep networks make much of it."""

    def rounded(m: Any, x: Tensor) -> Tensor:
        far = 123456.789 * x.shape[0]
        return m.b((m.a(x) + far) - far)

    torch.manual_seed(0)
    assert len(found(rounded, a=conv(), b=conv()).chains) > 0


def test_the_batch_is_the_first_dimension_of_what_is_returned() -> None:
    with pytest.raises(ModelError, match=r"returns \[8, batch, 4\] \(permute\); the batch must be the first") as caught:
        found(lambda m, x: m.b(m.a(x)).mean(2).permute(2, 0, 1), a=conv(), b=conv())  # time first, as for CTC
    assert "transpose" in str(caught.value.hint)
