"""A run of MLflow that holds a delivery: what it claims as metrics, what it was made with as parameters, its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from trt_layermerge.deployment.base import Delivered, DeploymentKind
from trt_layermerge.errors import RuntimeNotAvailableError, said
from trt_layermerge.extras import install_hint
from trt_layermerge.files import write_json


class MlflowRun(DeploymentKind):
    """Where it goes says MLflow's own ``MLFLOW_TRACKING_URI``; in a run that is active already, or in a new one."""

    name: ClassVar[str] = "mlflow"
    purpose: ClassVar[str] = "a run of MLflow with figures and files"

    def write(self, delivered: Delivered, name: str, folder: Path) -> tuple[Path, ...]:
        """Log it, and write ``NAME.mlflow.json`` with the run's id."""
        try:
            import mlflow
        except ImportError as error:
            hint = install_hint("mlflow", "mlflow-skinny")
            raise RuntimeNotAvailableError(f"--to mlflow needs MLflow: {error}", hint=hint) from error
        active = mlflow.active_run()
        try:
            with mlflow.start_run(run_name=name) if active is None else mlflow.start_run(nested=True, run_name=name):
                mlflow.log_params(delivered.settings)
                mlflow.log_metrics(dict(_metrics(delivered)))
                for file in (delivered.manifest, delivered.engine):
                    mlflow.log_artifact(str(file), "delivery")
                run = mlflow.active_run()
        except (mlflow.exceptions.MlflowException, OSError) as error:
            hint = "see MLFLOW_TRACKING_URI"
            raise RuntimeNotAvailableError(f"MLflow does not take the run: {said(error)}", hint=hint) from error
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / f"{name}.mlflow.json"
        write_json(record, {"run_id": run.info.run_id, "tracking_uri": mlflow.get_tracking_uri()})
        return (record,)


def _metrics(delivered: Delivered) -> Iterator[tuple[str, float]]:
    """Figures of both networks, such as ``compressed_latency_ms``, and their ratio."""
    if delivered.figures is None:
        return
    for network, figures in delivered.figures.named.items():
        yield from ((f"{network}_{what}", value) for what, value in figures.items())
    yield "speedup", delivered.figures.original["latency_ms"] / delivered.figures.compressed["latency_ms"]
