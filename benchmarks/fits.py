"""What one fitted merge costs, by its number of unknowns: seconds, memory, and how well it does on other patches.

Two 3x3 convolutions with a ReLU between them, random weights, on random smooth images, are replaced by one convolution,
in float64, as the importance of one choice does it. Up to 8,192 unknowns an output channel the normal equations are
formed; beyond, 4,096 patches are kept and the dual system is solved, drawn to the fit of a smaller kernel. Every case
runs in a process of its own, and its peak memory is that process's, less what it held before. ``seen`` and ``unseen``
are the shares of the target's variance that the fit misses: on the patches that it was solved on, and on other images.

    python benchmarks/fits.py --channels 64 --channels 512
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.merging.algebra import Convolution
from trt_layermerge.merging.fitting import equations_for
from trt_layermerge.merging.patches import sample_positions, samples_needed, unknowns_of
from trt_layermerge.network.geometry import Geometry

SIZE, BATCH, BATCHES = 14, 32, 16
"""Pixels on a side, images at once, and how many times."""


@dataclass(frozen=True)
class Cost:
    """Of one fit.

    Attributes:
        added: Seconds to accumulate its patches.
        solved: Seconds to solve.
        megabytes: Peak memory beyond what the process held before.
        residual: Of the linear system, relative.
        seen, unseen: Unexplained share of the variance.
    """

    added: float
    solved: float
    megabytes: float
    residual: float
    seen: float
    unseen: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, action="append", help="of input and output; may be repeated")
    parser.add_argument("--kernel", type=int, action="append", help="of the fit; may be repeated")
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} thread(s), {BATCH * BATCHES} images of {SIZE}x{SIZE}\n")
    print(
        f"{'channels':>8} {'kernel':>6} {'unknowns':>8} {'solver':>7} {'patches':>8} {'added, s':>9} {'solved, s':>9} "
        f"{'peak MB':>8} {'residual':>9} {'seen':>7} {'unseen':>7}"
    )
    for channels in given.channels or [64, 256, 512]:
        for kernel in given.kernel or [1, 3, 5]:
            row(geometry(channels, kernel))


def row(wanted: Geometry) -> None:
    """Print what a fit of a geometry costs."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        cost = pool.apply(cost_of, (wanted,))
    solver = type(equations_for(wanted)).__name__
    print(
        f"{wanted.in_channels:>8} {wanted.kernel[0]:>6} {unknowns_of(wanted) + 1:>8} "
        f"{'matrix' if solver == 'NormalEquations' else 'dual':>7} {samples_needed(wanted):>8} {cost.added:>9.2f} "
        f"{cost.solved:>9.2f} {cost.megabytes:>8.0f} {cost.residual:>9.1e} {cost.seen:>7.3f} {cost.unseen:>7.3f}",
        flush=True,
    )


def geometry(channels: int, kernel: int) -> Geometry:
    """A square kernel that keeps the size of its input."""
    return Geometry(channels, channels, (kernel, kernel), padding=(kernel // 2,) * 4)


def cost_of(wanted: Geometry) -> Cost:
    """Accumulate and solve one fit, and time both."""
    block = replaced(wanted.in_channels)
    data = list(batches(wanted.in_channels, block))
    held, equations, generator = peak_megabytes(), equations_for(wanted), torch.Generator().manual_seed(0)
    began = time.monotonic()
    for inputs, target in data[:-1]:
        count = -(-samples_needed(wanted) // (BATCHES - 1))
        equations.add(inputs, target, sample_positions(target.shape, count, generator))
    added = time.monotonic()
    fitted = equations.solve(wanted)
    solved = time.monotonic()
    memory = peak_megabytes() - held
    unseen = missed(fitted.convolution, *data[-1])
    return Cost(added - began, solved - added, memory, fitted.residual, fitted.unexplained, unseen)


def replaced(channels: int) -> nn.Module:
    """The block that is replaced."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    return nn.Sequential(next(layers), nn.ReLU(), next(layers)).eval()


def batches(channels: int, block: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs as a ReLU leaves them, neighbouring pixels and channels alike, and what the block makes of them."""
    mixing = torch.randn(channels, channels, 1, 1) / channels**0.5
    for _ in range(BATCHES):
        noise = F.avg_pool2d(torch.randn(BATCH, channels, SIZE + 2, SIZE + 2), 3, stride=1)
        inputs = (3 * F.conv2d(noise, mixing)).relu()
        with torch.inference_mode():
            yield inputs, block(inputs)


def missed(convolution: Convolution, inputs: Tensor, target: Tensor) -> float:
    """Unexplained share of the variance of a batch."""
    shape = convolution.geometry
    predicted = F.conv2d(inputs, convolution.weight.float(), convolution.bias.float(), padding=shape.padding[:2])
    varied = target - target.mean((0, 2, 3), keepdim=True)
    return float((target - predicted).square().sum() / varied.square().sum())


def peak_megabytes() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
