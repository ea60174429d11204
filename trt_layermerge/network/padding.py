"""Zero padding that stands before a convolution becomes part of it, whatever its sides.

``nn.Conv2d`` pads both sides of an axis alike; TensorFlow's SAME padding with a stride does not, so that sources write
a padding of its own before the convolution. In the normal form the two are one module. Padding with anything but zeros,
or that something else reads too, stays as it is: it is no part of a convolution.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from trt_layermerge.network.geometry import Geometry, Sides


class PaddedConv2d(nn.Conv2d):
    """A convolution whose zero padding may differ from side to side.

    Attributes:
        sides: Zeros around the input: top, left, bottom, right; ``padding`` is zero.
    """

    def __init__(self, conv: nn.Conv2d, sides: Sides) -> None:
        """A convolution with the weights of ``conv``, not a copy of them, and padding ``sides``."""
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            _pair(conv.kernel_size),
            _pair(conv.stride),
            (0, 0),
            _pair(conv.dilation),
            conv.groups,
            bias=conv.bias is not None,
            device="meta",  # nothing is drawn at random
        )
        self.weight, self.bias, self.sides = conv.weight, conv.bias, sides

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve ``[batch, channels, height, width]``."""
        top, left, bottom, right = self.sides
        return super().forward(F.pad(x, (left, right, top, bottom)))

    def extra_repr(self) -> str:
        """As ``nn.Conv2d``, with the sides."""
        return f"{super().extra_repr()}, sides={self.sides}"  # type: ignore[no-untyped-call]  # torch's


def geometry_of(conv: nn.Conv2d) -> Geometry:
    """The geometry of a convolution module."""
    return Geometry(
        conv.in_channels,
        conv.out_channels,
        _pair(conv.kernel_size),
        _pair(conv.stride),
        sides_of(conv),
        _pair(conv.dilation),
        conv.groups,
    )


def sides_of(conv: nn.Conv2d) -> Sides:
    """Zeros that a convolution puts around its input; of an odd number, 'same' puts the larger half behind."""
    if isinstance(conv, PaddedConv2d):
        return conv.sides
    if conv.padding == "same":
        total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        top, left = total[0] // 2, total[1] // 2
        return (top, left, total[0] - top, total[1] - left)
    rows, columns = (0, 0) if isinstance(conv.padding, str) else _pair(conv.padding)
    return (rows, columns, rows, columns)


def remove_padding(module: nn.Conv2d | nn.AvgPool2d) -> None:
    """Let a convolution, or a pooling that is one, expect an input that is padded already."""
    module.padding = (0, 0)
    if isinstance(module, PaddedConv2d):
        module.sides = (0, 0, 0, 0)
    if isinstance(module, nn.AvgPool2d):
        module.ceil_mode = False  # what is padded may end in a part of a window


def absorb_padding(module: fx.GraphModule) -> fx.GraphModule:
    """Make every zero padding that one convolution alone reads a part of that convolution.

    Paddings in a row go into it one after the other, the last one first.

    Requires: shapes in ``meta["shape"]``. Ensures: the same function, state-dict names and parameters.
    """
    uses = Counter(str(node.target) for node in module.graph.nodes if node.op == "call_module")
    for pad in reversed(list(module.graph.nodes)):
        sides, reader = constant_sides(pad), next(iter(pad.users), None)
        if sides is None or _padding_arguments(pad)[1] or reader is None or len(pad.users) > 1:
            continue
        conv = module.get_submodule(str(reader.target)) if uses[str(reader.target)] == 1 else None
        if isinstance(conv, nn.Conv2d):
            own = sides_of(conv)
            total = (sides[0] + own[0], sides[1] + own[1], sides[2] + own[2], sides[3] + own[3])
            module.set_submodule(str(reader.target), PaddedConv2d(conv, total))
            pad.replace_all_uses_with(pad.all_input_nodes[0])
            module.graph.erase_node(pad)
    module.recompile()
    return module


def constant_sides(node: fx.Node) -> Sides | None:
    """How wide a border of one number a node puts around images, if that is all it does."""
    sizes, _ = _padding_arguments(node)
    if sizes is None or len(node.meta.get("shape", ())) != 3:
        return None
    if len(sizes) > 4 or not all(isinstance(size, int) and size >= 0 for size in sizes):
        return None  # channels too, or cut off
    left, right, top, bottom = (*sizes, 0, 0)[:4]
    return (top, left, bottom, right)


def _padding_arguments(node: fx.Node) -> tuple[tuple[Any, ...] | None, Any]:
    """Sizes, last axis first, and value of a constant padding."""
    names: tuple[str, ...]
    if node.target is torch.ops.aten.pad.default:
        names = ("x", "pad", "mode", "value")
    elif node.target is torch.ops.aten.constant_pad_nd.default:
        names = ("x", "pad", "value")
    else:
        return None, None
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return (tuple(given["pad"]) if given.get("mode", "constant") == "constant" else None), given.get("value")


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return (value[0], value[1])
