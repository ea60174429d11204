"""What stands around a convolution in networks that are normalised before it: its pre-norm, and a shift behind it.

A *pre-norm* is a group norm, with or without an activation behind it, that reads a tensor for one convolution alone, as
in DDPM's U-Net. Its statistics come from the data, so that it folds into nothing: it stays, moves or goes as a whole.
A *shift* is one number for each sample and channel that is added to a convolution's result at every pixel, as networks
are told a time step.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import fx, nn

from trt_layermerge.network.activations import activation_name
from trt_layermerge.network.chain import PreNorm


class Calls(Protocol):
    """What is known of the calls of a normal form; ``Units`` is one."""

    def own(self, node: fx.Node) -> nn.Module | None:
        """The module of a call that has one reader and is the only call of its module."""
        ...

    def inert(self, node: fx.Node) -> bool:
        """Whether a node returns its input in evaluation."""
        ...


def pre_norm_of(calls: Calls, first: fx.Node) -> tuple[fx.Node, PreNorm | None]:
    """The tensor that a unit reads, and the pre-norm through which it does.

    Args:
        calls: Of the normal form.
        first: The unit's first node.
    """
    source = first.all_input_nodes[0]
    node, activation = _before(calls, source), None
    if (called := calls.own(node)) is not None and (name := activation_name(called)) is not None:
        activation, node = name, _before(calls, node.all_input_nodes[0])
    norm = calls.own(node)
    if not isinstance(norm, nn.GroupNorm) or len(node.meta.get("shape", ())) != 3:
        return source, None
    return node.all_input_nodes[0], PreNorm(node.name, norm.num_groups, activation, source.name)


def shift_of(conv: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The addition that alone reads a convolution's result and adds a shift to it, and the shift, ``[batch, C, 1, 1]``.

    ``None`` where there is none.
    """
    user = next(iter(conv.users), None)
    if user is None or len(conv.users) > 1 or user.target is not torch.ops.aten.add.Tensor or user.kwargs:
        return None
    operands = [arg for arg in user.args if isinstance(arg, fx.Node) and arg is not conv]
    shape = conv.meta.get("shape", ())
    if len(operands) != 1 or len(shape) != 3 or operands[0].meta.get("shape") != (shape[0], 1, 1):
        return None
    return user, operands[0]


def _before(calls: Calls, node: fx.Node) -> fx.Node:
    """The node whose result arrives at another one through what does nothing, read by nobody else on the way."""
    while calls.inert(node) and len(node.users) == 1:
        node = node.all_input_nodes[0]
    return node
