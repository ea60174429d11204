"""How much of its input and output a convolution has to do with in a network that is being narrowed.

While a plan is carried out every tensor keeps all its channels, and consumers read none that go: their weights are 0.
What is solved anew is solved without these channels; what does not stay of a result need not be right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trt_layermerge.merging.algebra import Convolution, regroup
from trt_layermerge.network.geometry import Geometry


@dataclass(frozen=True)
class Width:
    """Channels of a convolution's input and output that stay, in order.

    Attributes:
        inputs: Of its input.
        outputs: Of its output.
    """

    inputs: Int[Tensor, " inputs"]
    outputs: Int[Tensor, " outputs"]

    @classmethod
    def of(cls, geometry: Geometry, inputs: Tensor | None, outputs: Tensor | None) -> Width:
        """All channels where none are told, and where groups tie inputs to outputs."""
        tied = geometry.groups > 1
        return cls(
            torch.arange(geometry.in_channels) if tied or inputs is None else inputs,
            torch.arange(geometry.out_channels) if tied or outputs is None else outputs,
        )

    def geometry(self, whole: Geometry) -> Geometry:
        """What is left of a convolution's geometry."""
        return replace(whole, in_channels=len(self.inputs), out_channels=len(self.outputs))

    def part(self, whole: Convolution) -> Convolution:
        """What is left of a convolution; of one in groups that does the work of one without, as one without."""
        if whole.geometry.groups > 1 and self._is_all_of(whole.geometry):
            return whole
        whole = regroup(whole, 1)
        inputs, outputs = self._on(whole.weight)
        weight = whole.weight[outputs][:, inputs]
        carries = {number: matrix[outputs] for number, matrix in whole.carries.items()}
        return Convolution(self.geometry(whole.geometry), weight, whole.bias[outputs], carries)

    def whole(self, part: Convolution, geometry: Geometry) -> Convolution:
        """A convolution of a geometry that has this one in it, and is 0 elsewhere."""
        if geometry.groups > 1:
            return part
        inputs, outputs = self._on(part.weight)
        weight = part.weight.new_zeros(geometry.out_channels, geometry.in_channels, *geometry.kernel)
        weight[outputs[:, None], inputs] = part.weight

        def spread(rows: Tensor) -> Tensor:
            return rows.new_zeros(geometry.out_channels, *rows.shape[1:]).index_copy(0, outputs, rows)

        carries = {number: spread(matrix) for number, matrix in part.carries.items()}
        return Convolution(geometry, weight, spread(part.bias), carries)

    def _is_all_of(self, geometry: Geometry) -> bool:
        return (len(self.inputs), len(self.outputs)) == (geometry.in_channels, geometry.out_channels)

    def _on(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.inputs.to(like.device), self.outputs.to(like.device)


def some_of(values: Float[Tensor, "batch channels *pixels"], stay: Tensor) -> Float[Tensor, "batch _ *pixels"]:
    """The channels that stay of a tensor, which is not copied where all do."""
    return values if len(stay) == values.shape[1] else values[:, stay.to(values.device)]
