"""The kind ``estimate``: latencies of a GPU that is elsewhere, from its data sheet and fitted constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trt_layermerge.errors import UsageError
from trt_layermerge.estimation.device_files import SUFFIX, device_names
from trt_layermerge.estimation.tactic_sources import DEFAULT_LIBRARY, algorithms_of
from trt_layermerge.runtimes.base import Runtime, RuntimeKind
from trt_layermerge.runtimes.builder_settings import BuilderSettings, builder_setting


@dataclass(frozen=True)
class EstimateSettings(BuilderSettings):
    """What is estimated.

    Attributes:
        library: The TensorRT whose latencies are estimated; its version decides what algorithms there are.
    """

    library: str = builder_setting(
        DEFAULT_LIBRARY,
        "--estimated-runtime",
        "which TensorRT to estimate, such as tensorrt-8.4, which has FFT.",
        metavar="RUNTIME",
        usual=DEFAULT_LIBRARY,
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be estimated."""
        super().__post_init__()
        try:
            algorithms_of(self.library)
        except ValueError as error:
            raise UsageError(f"--estimated-runtime: {error}") from error


class EstimateKind(RuntimeKind):
    """Estimates, for the cards that the package knows and for those of a file."""

    name: ClassVar[str] = "estimate"
    purpose: ClassVar[str] = "planning for a GPU that is not here; nothing is timed, everything is marked simulated"
    packages: ClassVar[tuple[str, ...]] = ("trt_layermerge",)
    times_amid_network: ClassVar[bool] = True
    settings: ClassVar[type[BuilderSettings]] = EstimateSettings
    suffix: ClassVar[str] = ".estimate.onnx"
    targets: ClassVar[tuple[str, ...]] = device_names()

    def open(self, target: str | None) -> Runtime:
        """Read the card.

        Raises:
            UsageError: Its file cannot be read.
        """
        from trt_layermerge.runtimes.estimated.estimate_runtime import EstimateRuntime

        return EstimateRuntime(self, target or self.targets[0])

    def has_target(self, target: str) -> bool:
        """A card by its name; or a file, which ``open`` reads."""
        return target in self.targets or target.endswith(SUFFIX)

    def found(self) -> str:
        """The cards."""
        return f"cards {', '.join(self.targets)}"


KIND = EstimateKind()
