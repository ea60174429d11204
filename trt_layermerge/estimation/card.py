"""A card as the estimate knows it: its data sheet, its constants, and how far both were off where it was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from trt_layermerge.estimation.workload import Workload

Algorithm = Literal["implicit-gemm", "winograd", "fft", "depthwise"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)

TimingMode = Literal["torch-call", "engine", "amid-network"]
"""What is timed besides the GPU's work: one torch_tensorrt call, one run of an engine, or nothing but the kernel's own
launch, as for a layer inside of an engine."""
TIMING_MODES: tuple[TimingMode, ...] = get_args(TimingMode)


@dataclass(frozen=True)
class DeviceSheet:
    """A GPU's data sheet.

    Attributes:
        name: As ``--device`` takes it, such as ``rtx-2080-ti``.
        title: Its maker's name of it.
        compute_capability: Such as ``7.5``.
        multiprocessors: Streaming multiprocessors.
        cores: FP32 lanes of all multiprocessors.
        clock_ghz: Clock rate that it sustains under load.
        bandwidth_gb_s: Of its memory, in 10^9 bytes a second.
        fp16_speedup: FP16 over FP32 throughput of convolutions: half of what the data sheet says of tensor cores.
        int8_speedup: The same of INT8; all of what it says where there are no INT8 tensor cores.
    """

    name: str
    title: str
    compute_capability: str
    multiprocessors: int
    cores: int
    clock_ghz: float
    bandwidth_gb_s: float
    fp16_speedup: float
    int8_speedup: float

    def __post_init__(self) -> None:
        """Refuse what is no GPU."""
        _require_positive(self)

    @property
    def peak(self) -> float:
        """FP32 FLOP/s: a multiply-add of every lane in every cycle."""
        return 2e9 * self.cores * self.clock_ghz

    @property
    def bandwidth(self) -> float:
        """Bytes a second."""
        return 1e9 * self.bandwidth_gb_s


@dataclass(frozen=True)
class Constants:
    """What data sheets do not tell.

    Attributes:
        read: Share of the bandwidth that reads reach.
        write: Share that writes reach.
        gemm: Share of the peak that implicit GEMM reaches, on top of its tiles' own losses; above 1 where the card
            boosts above its data sheet.
        winograd: Share of the peak that Winograd's products reach.
        fft: Share of the peak that the products of spectra reach.
        depthwise: Share of the peak that depthwise convolutions reach.
        plane_ms: Milliseconds that a depthwise convolution takes for the square root of each plane (image and channel).
        torch_call_ms: Milliseconds of a torch_tensorrt call that are no convolution.
        engine_ms: The same of one run of an engine.
        amid_network_ms: The same of a layer inside of an engine.
    """

    read: float
    write: float
    gemm: float
    winograd: float
    fft: float
    depthwise: float
    plane_ms: float
    torch_call_ms: float
    engine_ms: float
    amid_network_ms: float

    def __post_init__(self) -> None:
        """Refuse what would make latencies negative."""
        _require_positive(self)

    def overhead_ms(self, timing: TimingMode) -> float:
        """What a timing mode adds to each row, in ms."""
        return float(getattr(self, overhead_field(timing)))


def overhead_field(timing: TimingMode) -> str:
    """The constant that holds a timing mode's overhead."""
    return f"{timing.replace('-', '_')}_ms"


@dataclass(frozen=True)
class Coverage:
    """The rows that an algorithm was fitted on, by smallest and largest; all but kernels may be off by a factor of 2.

    Attributes:
        kernel: Taps per axis.
        batch: Images at once.
        channels: Of input and output.
        pixels: Output pixels of one image.
    """

    kernel: tuple[int, int]
    batch: tuple[int, int]
    channels: tuple[int, int]
    pixels: tuple[int, int]

    def outside(self, one: Workload) -> tuple[str, ...]:
        """What of a workload lies outside, in words."""
        far = {
            "kernel": not self.kernel[0] <= one.kernel[0] <= self.kernel[1],
            "batch": not _near(one.batch, self.batch),
            "channels": not _near(one.in_channels, self.channels) or not _near(one.out_channels, self.channels),
            "pixels": not _near(one.pixels, self.pixels),
        }
        return tuple(name for name, present in far.items() if present)


def _near(value: int, bounds: tuple[int, int]) -> bool:
    """Within bounds, or outside of them by no more than a factor of 2."""
    return bounds[0] <= 2 * value and value <= 2 * bounds[1]


@dataclass(frozen=True)
class Spread:
    """How far estimates were from measured latencies, on rows that the constants had not seen.

    Attributes:
        rows: How many rows.
        median: Median of the relative error.
        p90: Its 90th percentile.
        low: Natural logarithm of measured over estimated that 5 % of the rows lie below.
        high: The one that 5 % lie above.
    """

    rows: int
    median: float
    p90: float
    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse intervals that do not hold the estimate."""
        if not self.low <= 0 <= self.high:
            raise ValueError(f"the interval from {self.low} to {self.high} does not hold 0")


@dataclass(frozen=True)
class Card:
    """All that an estimate rests on.

    Attributes:
        sheet: The data sheet.
        constants: The fitted constants.
        provenance: Where all of this is from, in words.
        constants_of: The card whose rows the constants were fitted on.
        timing: How those rows were timed.
        coverage: What those rows were, by algorithm.
        own: Errors on this card, by algorithm; without one, estimates of the algorithm are ``transferred``.
        transfer: Errors of the constants on another card, by precision and algorithm.
        transfer_timing: How the rows of that were timed.
    """

    sheet: DeviceSheet
    constants: Constants
    provenance: str
    constants_of: str
    timing: TimingMode
    coverage: Mapping[Algorithm, Coverage]
    own: Mapping[Algorithm, Spread]
    transfer: Mapping[str, Mapping[Algorithm, Spread]]
    transfer_timing: TimingMode


def _require_positive(value: DeviceSheet | Constants) -> None:
    for one in fields(value):
        number = getattr(value, one.name)
        if not isinstance(number, str) and not 0 < number < float("inf"):
            raise ValueError(f"{one.name} is {number}, not a number above 0")
