"""Why chains end, in the words of someone who deploys networks; the operator's own name stands in brackets."""

from __future__ import annotations

import operator
from collections.abc import Iterable

from torch import fx, nn

from trt_layermerge.network.activations import activation_name
from trt_layermerge.network.units import SHARED, Units

_DATA = "whose statistics come from the data, so that it cannot be folded"
_RESIZE = "a resize: the next layer reads another grid of pixels"
_PART = "a slice: only some of its channels or pixels go on"
_LAYOUT = "a change of layout, as before attention, a linear layer or a layer norm over channels"
_HEAD = "the head: the image becomes a vector"
_ATTENTION = "attention, which multiplies by what it computes from the image"

WORDS = {
    "max_pool2d": "max pooling, which is not linear",
    "max_pool2d_with_indices": "max pooling, which is not linear",
    "adaptive_max_pool2d": "max pooling, which is not linear",
    "adaptive_avg_pool2d": "adaptive average pooling, whose windows may differ in size",
    "mean": "a mean over the image",
    "cat": "a concatenation: the next layer reads several tensors",
    "stack": "a concatenation: the next layer reads several tensors",
    "mul": "a product of two tensors, which is not linear",
    "div": "a quotient of two tensors, which is not linear",
    "layer_norm": f"a layer norm, {_DATA}",
    "group_norm": f"a group norm, {_DATA}",
    "instance_norm": f"an instance norm, {_DATA}",
    "batch_norm": f"a batch norm without running statistics, {_DATA}",
    "conv2d": "a filter that is no layer: its weights are computed, or not named as a layer's",
    "conv_transpose2d": "a transposed convolution, which reads a grid finer than its input's",
    "pixel_shuffle": "a pixel shuffle, which makes pixels of channels",
    "pixel_unshuffle": "a pixel unshuffle, which makes channels of pixels",
    "permute": _LAYOUT,
    "transpose": _LAYOUT,
    "flatten": _HEAD,
    "view": _HEAD,
    "reshape": _HEAD,
    "linear": _HEAD,
    "slice": _PART,
    "split": _PART,
    "split_with_sizes": _PART,
    "chunk": _PART,
    "select": _PART,
    "getitem": _PART,
    "softmax": _ATTENTION,
    "matmul": _ATTENTION,
    "bmm": _ATTENTION,
    "scaled_dot_product_attention": _ATTENTION,
}
"""What an operator is to a chain."""

GATE = "is the gate of a squeeze-and-excitation, which the image is multiplied by"
SQUEEZE = "squeeze-and-excitation, which multiplies by what it computes from the whole image"


class Reasons:
    """Reasons for the breaks of one normal form."""

    ADDED_TO_ITSELF = "its output is added to itself, which is no skip"

    def __init__(self, units: Units) -> None:
        self.units = units

    def why_ends(self, tensor: fx.Node) -> str:
        """Why no unit continues a path behind a tensor."""
        if not tensor.users:
            return "nothing reads its output"
        if tensor.meta.get("shape", ())[1:] == (1, 1) and any(self._operator(user) == "mul" for user in tensor.users):
            return f"{GATE} (mul)"
        return f"feeds {self._list(tensor.users)}"

    def also_read(self, readers: Iterable[fx.Node]) -> str:
        """Why a path is cut at a tensor that others read."""
        return f"its output is also read by {self._list(readers)}"

    def branches(self, readers: list[fx.Node]) -> str:
        """Why a path does not go on where several units do."""
        if all(self.units.is_convolution(reader) for reader in readers):
            return f"its output branches into {len(readers)} convolutions"
        return f"its output branches into {len(readers)} layers"

    def outside(self, operand: fx.Node) -> str:
        """Why an addition is no skip."""
        if "pad" in self._operator(operand):
            return f"adds a tensor with channels padded to it, which is no convolution ({self._name(operand)})"
        return f"adds a tensor that does not come from this chain through convolutions alone ({self._name(operand)})"

    def other_stride(self, operand: fx.Node) -> str:
        """Why the addition of a tensor of this chain is no skip."""
        return f"adds a tensor of another stride ({self._name(operand)})"

    def _list(self, nodes: Iterable[fx.Node]) -> str:
        nodes = sorted(nodes)
        names = {self._operator(node) for node in nodes}
        if "mul" in names and any(self._whole_image(node) for node in nodes):
            return f"{SQUEEZE} ({', '.join(sorted(names))})"
        return " and ".join(dict.fromkeys(self._describe(node) for node in nodes))

    def _describe(self, node: fx.Node) -> str:
        if node.op == "output":
            return "the network's output"
        module, name = self.units.module(node), self._name(node)
        if isinstance(module, nn.Conv2d):
            reason = self.units.unusable(node)
            return name if reason is None else f"{name}, which cannot be merged: {reason}"
        if node.target is operator.add:
            return "an addition that is no skip of this chain (add)"
        return f"{self._words(node, module)} ({name})"

    def _words(self, node: fx.Node, module: nn.Module | None) -> str:
        if isinstance(module, (nn.AvgPool2d, nn.BatchNorm2d)):
            kind = "average pooling" if isinstance(module, nn.AvgPool2d) else "a batch norm"
            reason = self.units.unusable(node)
            return f"{kind}: {reason}" if reason == SHARED else reason or kind
        if isinstance(module, nn.ConvTranspose2d):
            return WORDS["conv_transpose2d"]
        if isinstance(module, nn.GroupNorm):
            return WORDS["group_norm"]
        if isinstance(module, nn.Linear):
            return WORDS["linear"]
        if module is not None and activation_name(module) is not None:
            shared = self.units.readers[str(node.target)] > 1
            return "an activation shared with others" if shared else "an activation, beside what else reads it"
        name = self._operator(node)
        if self._whole_image(node):
            return "global average pooling, behind which no image is left"
        if name == "pad" and node.kwargs.get("mode", (*node.args, *[None] * 3)[2]) not in (None, "constant"):
            return "padding with pixels of the image, not with zeros"
        if "pad" in name:
            return "padding that is part of no convolution"
        if name.startswith("upsample"):
            return _RESIZE
        if name == "mul" and any(_constant(operand) for operand in node.args):
            return "a product with a constant, which is linear, but not folded here"
        words = WORDS.get(name, "what is not known to be linear")
        return _LAYOUT if words == _HEAD and len(node.meta.get("shape", ())) > 1 else words

    def _whole_image(self, node: fx.Node) -> bool:
        """Whether a node averages over all pixels."""
        shape = node.meta.get("shape", ())
        return self._operator(node) in ("mean", "adaptive_avg_pool2d") and all(size == 1 for size in shape[1:])

    def _operator(self, node: fx.Node) -> str:
        return str(getattr(node.target, "__name__", node.target)).split(".")[0]

    def _name(self, node: fx.Node) -> str:
        """The operator's own name, or the module's kind and place."""
        module = self.units.module(node)
        if isinstance(module, nn.Conv2d):
            return f"convolution {node.target}"
        return self._operator(node) if module is None else f"{type(module).__name__} {node.target}"


def _constant(operand: object) -> bool:
    return not isinstance(operand, fx.Node) or operand.op == "get_attr"
