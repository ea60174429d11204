"""What a job made: the value that ``compress`` returns, and its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_layermerge.delivery.also import Also
from trt_layermerge.delivery.manifest import Figures, Manifest
from trt_layermerge.errors import InconclusiveError
from trt_layermerge.report.summary import REFINE, Prediction, prediction_of

MANIFEST, REPORT, RESULT = "manifest.json", "report.html", "result.json"
"""Names of the files that tell of a job, in its folder."""


@dataclass(frozen=True)
class Result:
    """What a job made.

    Attributes:
        manifest: As it was written.
        folder: Where everything lies.
        also: The engine for another runtime, where the job asked for one.
        slowed_lr: The peak learning rate that training ended with, where it diverged at the recipe's.
        cautions: What is to be known before it is trusted.
    """

    manifest: Manifest
    folder: Path
    also: Also | None = None
    slowed_lr: float | None = None
    cautions: tuple[str, ...] = ()

    @property
    def files(self) -> Mapping[str, Path]:
        """What a user looks for, by what it is."""
        names = {"engine": self.manifest.engine, "manifest": MANIFEST, "report": REPORT}
        return {what: self.folder / name for what, name in names.items()}

    @property
    def prediction(self) -> Prediction:
        """What the plan said of the latency, beside what was measured."""
        return prediction_of(self.manifest)

    @property
    def objection(self) -> InconclusiveError | None:
        """What ``compress`` ends with where the delivered engine is slower than planned; ``None`` where it is not."""
        if not self.prediction.late:
            return None
        mend = "allow a larger budget" if self.manifest.refined else REFINE
        hint = f"it is delivered all the same; {mend}, and profile --again measures anew what was too noisy"
        return InconclusiveError(str(self.prediction.objection), hint=hint)

    def as_json(self) -> dict[str, Any]:
        """The object that ``compress --json`` prints and ``result.json`` holds."""
        manifest, prediction = self.manifest, self.prediction
        said: dict[str, Any] = {"simulated": True} if manifest.simulated else {}  # beside what is no measurement
        said |= {"warnings": list(self.cautions)} if self.cautions else {}
        said |= {"metric": manifest.metric} if manifest.metric else {}  # and beside what is no accuracy
        said |= {"agreement": manifest.agreement} if manifest.agreement else {}
        said |= {name: self._figures(figures) for name, figures in manifest.figures.named.items()}
        said |= {
            "speedup": manifest.speedup,
            "predicted_latency_ms": prediction.predicted_ms,
            "prediction_error": prediction.error,
            "prediction_missed": prediction.missed,
            "proof": manifest.proof.model_dump(mode="json"),
        }
        said |= {} if self.slowed_lr is None else {"slowed_lr": self.slowed_lr}
        said |= {what: str(path) for what, path in self.files.items()}
        if self.also is not None:
            said |= {"also": self.also.as_json()}
        return said

    def _figures(self, figures: Figures) -> dict[str, Any]:
        """A network's figures; without labels, what they agree in is no accuracy."""
        fields = figures.model_dump(mode="json")
        if self.manifest.agreement is None:
            return fields
        return {"agreement" if name == "accuracy" else name: value for name, value in fields.items()}
