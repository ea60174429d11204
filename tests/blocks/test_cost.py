from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor, nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.cost import Setting, signatures
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.network.network import Network

Make = Callable[..., Network]
SETTING = Setting(8, "fp16")


def conv(i: int = 4, o: int = 4, k: int = 3, **kwargs: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **kwargs)


def keys(network: Network, choice: str, limits: Limits | None = None) -> list[str]:
    (found,) = [item for item in choices_of(network, limits) if item.key == choice]
    return [signature.key.removeprefix("fp16 n8 ") for signature in signatures(network, found, SETTING)]


@pytest.fixture
def residual(make: Make) -> Network:
    """A branch of two layers with an identity skip, then one that halves, with a projection."""
    return make(
        [conv(), conv(), conv(), conv(4, 8, stride=2), conv(8, 8)],
        {(1, 3): None, (3, 5): conv(4, 8, 1, stride=2)},
        {index: nn.ReLU() for index in range(1, 6)},
    )


CONV = "4x16x16 conv 4>4 k{0}x{0} s1x1 p{1},{1},{1},{1} d1x1 g1 bias"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("0:0-1 keep 3x3 g1", [CONV.format(3, 1) + " relu"]),
        ("0:2-3 keep 3x3 g1", [CONV.format(3, 1) + " add relu"]),
        ("0:2-3 fit 1x1 g1", [CONV.format(1, 0) + " add relu"]),  # the skip from outside stays beside it
        ("0:1-3 merge 5x5 g1", [CONV.format(5, 2) + " relu"]),  # the skip inside is in the kernel
        ("0:1-3 fit 3x3 g1", [CONV.format(3, 1) + " relu"]),
        ("0:1-3 identity", []),
        ("0:1-2 identity", []),
        ("0:2-3 identity", ["4x16x16 pass add relu"]),
        (
            "0:4-5 keep 3x3 g1",
            [
                "8x8x8 conv 8>8 k3x3 s1x1 p1,1,1,1 d1x1 g1 bias add relu",
                "4x16x16 conv 4>8 k1x1 s2x2 p0,0,0,0 d1x1 g1 bias",
            ],
        ),
        ("0:4-5 identity", ["8x8x8 pass add relu", "4x16x16 conv 4>8 k1x1 s2x2 p0,0,0,0 d1x1 g1 bias"]),
        ("0:3-5 fit 3x3 g1", ["4x16x16 conv 4>8 k3x3 s2x2 p1,1,1,1 d1x1 g1 bias relu"]),
    ],
)
def test_what_choices_execute(residual: Network, choice: str, expected: list[str]) -> None:
    assert keys(residual, choice) == expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("0:1-2 keep 3x3 g1", [CONV.format(3, 1) + " relu"]),
        ("0:2-3 keep 3x3 g1", [CONV.format(3, 1) + " relu", "4x16x16 pass add"]),
        ("0:1-3 merge 5x5 g1", [CONV.format(5, 2) + " relu", "4x16x16 pass add"]),  # the skip stays beside it
        ("0:1-3 identity", []),  # the skip alone is left
        ("0:2-3 identity", ["4x16x16 pass add"]),  # half of the branch; the activation would do nothing
        ("0:0-4 merge 9x9 g1", [CONV.format(9, 4)]),
        ("0:3-4 identity", []),
    ],
)
def test_a_skip_behind_the_activation(quick: Callable[..., Network], choice: str, expected: list[str]) -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = conv(), conv(), conv(), conv()
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y = self.act(self.a(x))
            return self.d(self.act(self.c(self.act(self.b(y)))) + y)

    network = quick(Late(), (4, 16, 16))
    assert keys(network, choice, Limits(9)) == expected
    crossing = {"0:0-2", "0:0-3", "0:2-4"}
    assert not crossing & {str(item.block) for item in choices_of(network)}


def test_a_pooling_is_executed_as_one_where_it_is_kept(quick: Callable[..., Network]) -> None:
    module = nn.Sequential(conv(4, 8), nn.AvgPool2d(2), nn.ReLU(), nn.BatchNorm2d(8), conv(8, 8, 1))
    network = quick(module, (4, 16, 16))
    assert keys(network, "0:1-2 keep 2x2 g8") == ["8x16x16 pool 8>8 k2x2 s2x2 p0,0,0,0 d1x1 g8 relu"]
    assert keys(network, "0:0-2 merge 4x4 g1") == ["4x16x16 conv 4>8 k4x4 s2x2 p1,1,1,1 d1x1 g1 bias relu"]
    assert keys(network, "0:2-3 keep 1x1 g8") == ["8x8x8 conv 8>8 k1x1 s1x1 p0,0,0,0 d1x1 g8 bias"]


def test_each_layer_of_a_skip_is_an_operation(quick: Callable[..., Network]) -> None:
    class Down(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(conv(4, 8, stride=2), nn.ReLU(), conv(8, 8))
            self.skip = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 8, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) + self.skip(x)

    assert keys(quick(Down(), (4, 16, 16)), "0:1-2 keep 3x3 g1")[1:] == [
        "4x16x16 pool 4>4 k2x2 s2x2 p0,0,0,0 d1x1 g4",
        "4x8x8 conv 4>8 k1x1 s1x1 p0,0,0,0 d1x1 g1 bias",
    ]


def test_a_second_skip_is_an_addition_more(make: Make) -> None:
    network = make([conv(), conv(), conv()], {(0, 3): None, (1, 3): None}, {3: nn.SiLU()})
    assert keys(network, "0:2-3 keep 3x3 g1") == [CONV.format(3, 1) + " add", "4x16x16 pass add silu"]
    assert keys(network, "0:2-3 identity") == ["4x16x16 pass add", "4x16x16 pass add silu"]


def test_a_skip_around_one_layer_stays_when_it_is_kept_and_goes_when_it_is_merged(make: Make) -> None:
    network = make([conv()], {(0, 1): None}, {1: nn.ReLU()})
    assert keys(network, "0:0-1 keep 3x3 g1") == [CONV.format(3, 1) + " add relu"]
    assert keys(network, "0:0-1 merge 3x3 g1") == [CONV.format(3, 1) + " relu"]
    assert keys(network, "0:0-1 identity") == ["4x16x16 pass relu"]


@pytest.mark.parametrize(
    ("before", "after", "redundant"),
    [
        (nn.ReLU(), nn.ReLU(), True),
        (nn.ReLU6(), nn.ReLU6(), True),
        (nn.ReLU6(), nn.ReLU(), True),
        (nn.Sigmoid(), nn.ReLU(), True),
        (nn.ReLU(), nn.ReLU6(), False),
        (nn.SiLU(), nn.SiLU(), False),
        (nn.SiLU(), nn.ReLU(), False),
        (None, nn.ReLU(), False),
    ],
)
def test_activations_that_do_nothing(make: Make, before: nn.Module | None, after: nn.Module, redundant: bool) -> None:
    acts = {2: after} if before is None else {1: before, 2: after}
    network = make([conv(), conv()], {}, acts)
    (choice,) = [choice for choice in choices_of(network) if choice.key == "0:1-2 identity"]
    assert (signatures(network, choice, SETTING) == ()) is redundant


def test_a_layer_without_bias_has_none_and_what_is_merged_has_one(make: Make) -> None:
    network = make([conv(bias=False), conv(bias=False)])
    assert not keys(network, "0:0-1 keep 3x3 g1")[0].endswith("bias")
    assert keys(network, "0:0-2 merge 5x5 g1") == [CONV.format(5, 2)]


def test_equal_blocks_share_their_signatures(make: Make) -> None:
    network = make(
        [conv() for _ in range(6)], {(0, 2): None, (2, 4): None, (4, 6): None}, {i: nn.ReLU() for i in (2, 4, 6)}
    )
    by_key = {choice.key: signatures(network, choice, SETTING) for choice in choices_of(network)}
    assert by_key["0:0-2 fit 3x3 g1"] == by_key["0:2-4 fit 3x3 g1"] == by_key["0:4-6 fit 3x3 g1"]
    assert by_key["0:1-2 keep 3x3 g1"] == by_key["0:3-4 keep 3x3 g1"] != by_key["0:2-3 keep 3x3 g1"]
