"""Channel groups as values: channels of several tensors that can only be left out together. Torch-free.

Depthwise convolutions, norms, activations and poolings pass channels on one by one, and sums and products of tensors
join them: what is left out of one tensor is then out of all of them. A convolution or a linear layer over all channels
ends a group, as its consumer, and begins another, as its producer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of tensors that stand and fall together.

    Attributes:
        index: Its number in the network, from 0.
        channels: How many there are.
        producers: Nodes of the convolutions whose output channels they are.
        consumers: Nodes of the convolutions and linear layers that read them all.
        through: Nodes that pass them on one by one: depthwise convolutions, norms, activations, poolings, sums, gates.
        tensors: The tensors of chains among them, as chain and number.
    """

    index: int
    channels: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    through: tuple[str, ...]
    tensors: tuple[tuple[int, int], ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """Every node whose result has these channels."""
        return (*self.producers, *self.through)


@dataclass(frozen=True)
class FixedChannels:
    """Tensors whose channels must all stay.

    Attributes:
        producers: Nodes of the convolutions that make them.
        tensors: The tensors of chains among them, as chain and number.
        reason: In words.
    """

    producers: tuple[str, ...]
    tensors: tuple[tuple[int, int], ...]
    reason: str
