"""What budgets cost, before one is chosen: rows, and how they are told to people, to programs and in a page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_layermerge.report.charts import Mark, losses_chart
from trt_layermerge.report.html import write_page

EXPLORATION = "explore.html"
"""Name of the page, in the folder of a job."""


@dataclass(frozen=True)
class ExploredBudget:
    """A budget, and what its best plan turned out to be when it was executed; nothing was trained.

    Attributes:
        budget: As ``--budget`` takes it.
        predicted: Speed-up that the plan predicts.
        measured: Speed-up of its engine, timed interleaved with the original's.
        latency_ms: Of its engine, in ms.
        changed: Blocks that are merged, fitted or dropped.
        loss: Held-out loss after fits.
        accuracy: Held-out accuracy after fits, or the task's metric; ``None`` where it is not known.
        finishing_seconds: How long a job should take from here: an estimate, and so in no file that another run makes
            again.
    """

    budget: str
    predicted: float
    measured: float
    latency_ms: float
    changed: int
    loss: float
    accuracy: float | None
    finishing_seconds: float = field(compare=False)


@dataclass(frozen=True)
class Exploration:
    """What budgets cost.

    Attributes:
        model: Spec of the network.
        device: What engines were timed on, in words.
        simulated: No device was timed.
        metric: What accuracies are; ``None`` for the share of right answers.
        images: Held-out images that losses were measured on.
        original_loss: Of the original on the same.
        original_accuracy: Likewise.
        budgets: The slowest first.
        trains: Whether it would train.
        command: What was typed.
    """

    model: str
    device: str
    simulated: bool
    metric: str | None
    images: int
    original_loss: float
    original_accuracy: float
    budgets: tuple[ExploredBudget, ...]
    trains: bool
    command: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of the rows, in sentences; the same whenever it is asked."""
        simulated = ("SIMULATED: no device was timed; the latencies are no measurements",) if self.simulated else ()
        return (
            *simulated,
            f"Losses are those of {self.images} held-out images after fits; nothing was trained, no test data read.",
        )

    @property
    def going_on(self) -> str:
        """What the minutes of each budget are, in a sentence."""
        training = "fine-tuning included" if self.trains else "without fine-tuning"
        return f"'From here' is how long the job with that budget should take, {training}."

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The cells of the table, the original first; see ``columns``."""
        original = ("", "1.00x", "", "", "", f"{self.original_loss:.4f}", "", self._quality(self.original_accuracy))
        return (original, *map(self._row, self.budgets))

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the table."""
        quality = self.metric or "accuracy"
        return (
            "budget", "speed-up", "predicted", "latency, ms", "changed", "held-out loss", "change", quality
        )  # fmt: skip

    def _row(self, one: ExploredBudget) -> tuple[str, ...]:
        return (
            one.budget,
            f"{one.measured:.2f}x",
            f"{one.predicted:.2f}x",
            f"{one.latency_ms:.4g}",
            str(one.changed),
            f"{one.loss:.4f}",
            f"{one.loss - self.original_loss:+.4f}",
            "" if one.accuracy is None else self._quality(one.accuracy),
        )

    def _quality(self, value: float) -> str:
        return f"{value:.2%}" if self.metric is None else f"{value:.4g}"

    def as_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return {
            **({"simulated": True} if self.simulated else {}),
            **({} if self.metric is None else {"metric": self.metric}),
            "original": {"held_out_loss": self.original_loss, "held_out_accuracy": self.original_accuracy},
            "budgets": [
                {
                    "budget": one.budget,
                    "predicted_speedup": one.predicted,
                    "speedup": one.measured,
                    "latency_ms": one.latency_ms,
                    "changed": one.changed,
                    "held_out_loss": one.loss,
                    "held_out_accuracy": one.accuracy,
                    "finishing_seconds": round(one.finishing_seconds, 1),
                }
                for one in self.budgets
            ],
        }


def write_exploration(path: Path, found: Exploration) -> None:
    """Write the page: picture, table, and how to go on."""
    write_page(path, "exploration.html", found=found, picture=losses_chart(list(_marks(found)), found.original_loss))


def _marks(found: Exploration) -> Iterator[Mark]:
    tips = tuple(
        f"budget {one.budget}\n{one.measured:.2f}x measured, {one.predicted:.2f}x predicted\nloss {one.loss:.4f}"
        for one in found.budgets
    )
    yield Mark("measured, after fits", tuple((one.measured, one.loss) for one in found.budgets), "accent", tips)
