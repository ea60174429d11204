"""The shape of a convolution without its weights, and how shapes compose.

Torch-free, so that planning tools and latency tables can speak of convolutions without loading a framework.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

Pair = tuple[int, int]
"""Height, width."""

Sides = tuple[int, int, int, int]
"""Top, left, bottom, right."""


@dataclass(frozen=True)
class Geometry:
    """Everything about a 2-D convolution but its weights.

    Attributes:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Height and width of the kernel, in taps.
        stride: Step of the output grid on the input grid.
        padding: Zeros around the input: top, left, bottom, right; may differ from side to side.
        dilation: Distance of two taps.
        groups: Number of independent groups of channels.
    """

    in_channels: int
    out_channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Sides = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def extent(self) -> Pair:
        """Input pixels that one output pixel spans: ``1 + (kernel - 1) * dilation``."""
        return (1 + (self.kernel[0] - 1) * self.dilation[0], 1 + (self.kernel[1] - 1) * self.dilation[1])

    @property
    def keeps_shape(self) -> bool:
        """The output has the shape of any input, pixel on pixel, so that the convolution could be left out."""
        (top, left, bottom, right), (height, width) = self.padding, self.extent
        return (
            self.in_channels == self.out_channels
            and self.stride == (1, 1)
            and top == bottom
            and left == right
            and 2 * top == height - 1
            and 2 * left == width - 1
        )

    def output_size(self, size: Pair) -> Pair:
        """Height and width of the output for an input of this height and width."""
        (top, left, bottom, right), extent, stride = self.padding, self.extent, self.stride
        return (
            (size[0] + top + bottom - extent[0]) // stride[0] + 1,
            (size[1] + left + right - extent[1]) // stride[1] + 1,
        )

    def cropped(self, size: Pair) -> Geometry:
        """The middle of the kernel, without the taps that meet nothing but padding on an input of this size.

        It computes the same there. As many taps go on both sides, so that an odd kernel stays odd.
        """
        if self.dilation != (1, 1):
            return self
        outputs = self.output_size(size)
        rows, columns = (
            _idle(size[axis], outputs[axis], self.stride[axis], self.kernel[axis], *self._axis(axis)[1:])
            for axis in (0, 1)
        )
        top, left, bottom, right = self.padding
        return replace(
            self,
            kernel=(self.kernel[0] - 2 * rows, self.kernel[1] - 2 * columns),
            padding=(top - rows, left - columns, bottom - rows, right - columns),
        )

    def middle(self, size: int) -> Geometry | None:
        """The convolution of the middle taps alone, ``size`` per axis or what there is, with the same output pixels.

        In an even kernel an odd one lies half a pixel off the middle, on whichever side the padding allows; ``None``
        where there is not enough padding. The kernel must not be dilated.
        """
        rows, columns = (_centred(size, *self._axis(axis)) for axis in (0, 1))
        if rows is None or columns is None:
            return None
        padding = (rows[1], columns[1], rows[2], columns[2])
        return replace(self, kernel=(rows[0], columns[0]), padding=padding)

    def then(self, second: Geometry) -> Geometry:
        """The one convolution that does the work of this one and then ``second``, all zero padding at its input.

        Per axis: ``kernel = 1 + sum_l (K_l - 1) d_l prod_{m<l} s_m``, ``stride = prod s_l`` and
        ``padding = sum_l p_l prod_{m<l} s_m`` (design, section 3). Grouped with anything else becomes the smallest
        grouping that holds both: the mid channels fall into blocks of ``lcm(M / g1, M / g2)``, which are
        ``gcd(g1, g2)`` blocks. Dilation is written out into the kernel.

        Raises:
            ValueError: The second does not read as many channels as this one makes.
        """
        if self.out_channels != second.in_channels:
            raise ValueError(f"cannot compose {self.out_channels} channels with {second.in_channels}")
        (h1, w1), (h2, w2), (sh, sw) = self.extent, second.extent, self.stride
        top, left, bottom, right = second.padding
        return Geometry(
            in_channels=self.in_channels,
            out_channels=second.out_channels,
            kernel=(h1 + (h2 - 1) * sh, w1 + (w2 - 1) * sw),
            stride=(sh * second.stride[0], sw * second.stride[1]),
            padding=(
                self.padding[0] + top * sh,
                self.padding[1] + left * sw,
                self.padding[2] + bottom * sh,
                self.padding[3] + right * sw,
            ),
            groups=gcd(self.groups, second.groups),
        )

    def beside(self, other: Geometry) -> Geometry:
        """The one convolution that does the work of this one plus ``other`` on the same input.

        Both kernels are laid on one grid so that their padding lines up.

        Raises:
            ValueError: The two do not map the same input to the same output grid.
        """
        if (self.in_channels, self.out_channels, self.stride) != (other.in_channels, other.out_channels, other.stride):
            raise ValueError(f"cannot add a convolution {other} to {self}: channels or stride differ")
        rows = _lay_over(self._axis(0), other._axis(0))
        columns = _lay_over(self._axis(1), other._axis(1))
        return Geometry(
            self.in_channels,
            self.out_channels,
            kernel=(rows[0], columns[0]),
            stride=self.stride,
            padding=(rows[1], columns[1], rows[2], columns[2]),
            groups=gcd(self.groups, other.groups),
        )

    def _axis(self, axis: int) -> tuple[int, int, int]:
        """Extent, padding before and padding after, of one axis."""
        return self.extent[axis], self.padding[axis], self.padding[axis + 2]

    def __str__(self) -> str:
        """Compact and complete, as it stands in tables: ``16>32 k3x3 s2x2 p1,1,1,1 d1x1 g1``."""
        return (
            f"{self.in_channels}>{self.out_channels} k{self.kernel[0]}x{self.kernel[1]} "
            f"s{self.stride[0]}x{self.stride[1]} p{','.join(map(str, self.padding))} "
            f"d{self.dilation[0]}x{self.dilation[1]} g{self.groups}"
        )


def _idle(size: int, outputs: int, stride: int, kernel: int, before: int, after: int) -> int:
    """How many taps on either side of a kernel never meet the input, along one axis."""

    def meets(tap: int) -> bool:
        first = max(0, -(-(before - tap) // stride))  # output pixel at which the tap is on the input, or behind it
        return first < outputs and first * stride + tap - before < size

    most = min(before, after, (kernel - 1) // 2)
    return next((n for n in range(most) if meets(n) or meets(kernel - 1 - n)), most)


def _centred(size: int, extent: int, before: int, after: int) -> tuple[int, int, int] | None:
    """Kernel and padding of the middle ``size`` taps of a kernel; ``None`` where there is not enough padding."""
    size = min(size, extent)
    less, more = (extent - size) // 2, (extent - size + 1) // 2
    for front, back in ((less, more), (more, less)):
        if front <= before and back <= after:
            return size, before - front, after - back
    return None


def _lay_over(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    """Extent and padding of the kernel on which two others lie with their output grids matched, along one axis."""
    before = max(a[1], b[1])
    extent = before + max(a[0] - a[1], b[0] - b[1])
    # Output sizes depend on padding minus extent only; where a stride hides a difference, the larger serves both.
    surplus = max(a[1] + a[2] - a[0], b[1] + b[2] - b[0])
    return extent, before, surplus + extent - before
