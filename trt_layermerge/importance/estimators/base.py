"""What every importance estimator must answer. Torch-free, as the modules of all kinds are: they make the options.

To plan, a choice needs a row in the importance table: what it does to the network when it is the only change. An
estimator says how rows are found, and all else that is to be said of it; nobody asks it for its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.errors import UsageError
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.progress import Progress
from trt_layermerge.resources.memory import MemoryLimit, Need

if TYPE_CHECKING:
    from trt_layermerge.blocks.sized_choices import NarrowedGroup
    from trt_layermerge.network.network import Network
    from trt_layermerge.training.task import Task


_COUNTED = {"share": "of the data", "epochs": "epochs", "steps": "steps"}
"""Fields whose number comes before the word."""


@dataclass(frozen=True)
class Samples:
    """How much data an estimator looks at.

    Attributes:
        calibration: Images that fits are solved on, and statistics of batch norms corrected.
        held_out: Images that the loss is measured on.
    """

    calibration: int = 512
    held_out: int = 1024


@dataclass(frozen=True)
class EstimationRequest:
    """What an estimator is asked to measure.

    Attributes:
        network: The original, in evaluation mode, where torch computes; it is not to be changed.
        choices: What has no row yet, sorted by block; nothing that the estimator refuses.
        task: Data, loss and metric; its test data is not to be read.
        samples: How much data to look at.
        max_kernel: The largest kernel that is ever fitted or merged, wanted here or not.
        table: The table's file. What is kept for an interrupted call lies beside it and bears its stem.
        narrowed: Widths of channel groups that have no row yet.
        memory: The most that the process may take.
    """

    network: Network
    choices: Sequence[Choice]
    task: Task
    samples: Samples
    max_kernel: int
    table: Path
    narrowed: Sequence[NarrowedGroup] = ()
    memory: MemoryLimit = field(default_factory=MemoryLimit.usual)

    @property
    def missing(self) -> int:
        """How many rows are wanted."""
        return len(self.choices) + len(self.narrowed)


def setting(default: Any, help: str, *, unset: str | None = None) -> Any:
    """A field of an estimator that the command line and configuration files can set.

    Args:
        default: Its value where neither does.
        help: What ``--help`` says of it.
        unset: What ``None`` stands for, in a word.
    """
    return field(default=default, metadata={"help": help, "unset": unset})


@dataclass(frozen=True)
class Estimator(ABC):
    """A way to measure importance: a frozen dataclass, whose fields are its settings.

    Each field is a ``setting`` of type int, float, bool or str, a ``Literal``, or one of them or ``None``; it has a
    default, and ``__post_init__`` refuses what is out of range with a ``UsageError``. Options, keys of configuration
    files and the table's key are made from the fields.

    Attributes:
        name: As it is asked for, and in tables.
        summary: A few words for ``--help``.
        group: What its options begin with; the name, where it is empty.
        trains: Whether it reads the task's training data.
        measures_widths: Whether it can tell what narrowing a channel group does.
        shares_work: Whether several machines are faster than one; not where all rows rest on one training.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    group: ClassVar[str] = ""
    trains: ClassVar[bool] = False
    measures_widths: ClassVar[bool] = False
    shares_work: ClassVar[bool] = True

    @classmethod
    def option(cls, field: str) -> str:
        """Name of the option that sets a field: ``--tuning-lr`` for ``lr``."""
        return f"--{cls.group or cls.name}-{field}".replace("_", "-")

    @property
    def in_words(self) -> str:
        """All settings but those that are ``None``: part of a table's key, so other numbers must be other words."""
        return ", ".join(self._phrases())

    def _phrases(self) -> Iterator[str]:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                number, word = str(value).removesuffix(".0"), _COUNTED.get(item.name)
                yield f"{item.name.replace('_', ' ')} {number}" if word is None else f"{number} {word}"

    def samples_used(self, samples: Samples) -> Samples:
        """The samples that rows depend on: part of a table's key. 0 for those that it does not look at."""
        return samples

    def measures(self, choice: Choice) -> bool:
        """Whether there is a row for a choice. A layer that is kept as it is changes nothing and needs none."""
        return choice.kind is not Kind.KEEP

    def require_task(self, task: Task, network: Network) -> None:
        """See that it can measure on a task; called before anything long begins.

        Raises:
            UsageError: It cannot; message and hint say why and what to do.
        """
        return  # any will do

    def require_measurable(self, network: Network, choices: Sequence[Choice]) -> None:
        """See that it can measure choices; called before anything long begins.

        Raises:
            UsageError: It cannot measure one of them; the message has its key, the hint says what to do.
        """
        return  # any will do

    def require_widths(self) -> None:
        """See that it can tell what narrowing does; called before anything long begins.

        Raises:
            UsageError: It cannot.
        """
        if not self.measures_widths:
            raise UsageError(
                f"the estimator {self.name} does not measure widths",
                hint="leave out --widths, or measure with --estimator fit",
            )

    @abstractmethod
    def rows(self, request: EstimationRequest, progress: Progress) -> Iterator[ImportanceRow]:
        """Measure; the next choice begins when the row before it is on disk.

        A row depends on nothing but its choice, the network, the task and what the table's key says: not on which
        others are asked for, nor on whether an earlier call was interrupted.

        Args:
            request: What to measure.
            progress: To be told of what comes before the rows; of these it is told by who asks for them.

        Raises:
            ModelError: The network itself has a loss or activations that are not finite.
            TaskError: The task has no data to fit, to train or to evaluate on.
        """

    def forget(self, choices: Sequence[Choice], task: Task, table: Path) -> None:
        """Remove what it kept beside a table for choices that have rows by now: a kill may come between the two."""
        return  # most keep nothing

    def width_rows(self, request: EstimationRequest, progress: Progress) -> Iterator[ImportanceRow]:
        """Measure what narrowing each group does, as ``rows`` does with choices; of those with ``measures_widths``.

        Raises:
            UsageError: It cannot.
        """
        self.require_widths()
        raise UsageError(
            f"estimator {self.name!r} says that it measures widths, and has no width_rows",
            hint="write it, or leave measures_widths as it is",
        )

    def needs(self, request: EstimationRequest, images: int) -> Need:
        """The memory that nothing can be measured without.

        Args:
            request: What would be measured.
            images: In the largest batch.
        """
        from trt_layermerge.network.count import pass_bytes

        return Need(passes=pass_bytes(request.network.module.graph, images))

    def work(self, request: EstimationRequest) -> Sequence[float]:
        """How much work each row is beside the others, in the order in which rows come: for the time that is left."""
        return [1.0] * request.missing

    @abstractmethod
    def seconds(self, request: EstimationRequest, per_image: float) -> float:
        """How long ``rows`` should take.

        Args:
            request: What would be measured; at least one choice.
            per_image: What a forward pass of the network takes for one image, in seconds.
        """
