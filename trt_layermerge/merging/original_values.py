"""What the original makes of the calibration data at one place after the other, going on from where it was last.

Blocks are fitted in the order of the network, each for what the original makes behind it. Run from the start for every
block, the original would take as many passes as there are blocks, and half of the time that their fits take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, fx

from trt_layermerge.network.cut import onward, up_to

PLACES = 2
"""Places whose values are kept: the last one, and the one before, which a skip around it may start from."""


class OriginalValues:
    """Values of nodes of a network that does not change, batch by batch.

    Args:
        module: The network, in evaluation mode.
        batches: Gives the data anew, ``[batch, ...]`` for each input, where the network is.
        memory: Most bytes of values that are kept; without any, all are computed from the start.
    """

    def __init__(
        self, module: fx.GraphModule, batches: Callable[[], Iterator[tuple[Tensor, ...]]], memory: int
    ) -> None:
        self._module, self._batches, self._memory = module, batches, memory
        self._inputs = [node.name for node in module.graph.nodes if node.op == "placeholder"]
        self._kept: dict[str, list[Tensor]] = {}

    def at(self, name: str) -> Iterator[Tensor]:
        """The values of a node; those of the last batch have to be taken, or nothing is kept."""
        part, names = onward(up_to(self._module, [name]), [*self._inputs, *self._kept])
        kept, made, number = dict(self._kept), list[Tensor](), -1
        for number, batch in enumerate(self._batches()):
            given = dict(zip(self._inputs, batch, strict=True))
            (value,) = part(*(given[one] if one in given else kept[one][number] for one in names))
            if sum(map(_bytes, (made, [value]))) <= self._memory:
                made.append(value)
            yield value
        if len(made) == number + 1:
            self._keep(name, made)

    def _keep(self, name: str, values: list[Tensor]) -> None:
        self._kept.pop(name, None)
        self._kept[name] = values
        while len(self._kept) > PLACES or sum(map(_bytes, self._kept.values())) > self._memory:
            del self._kept[next(iter(self._kept))]


def _bytes(values: list[Tensor]) -> int:
    return sum(value.nbytes for value in values)
