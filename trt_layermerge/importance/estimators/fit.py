"""Ours: every change is made as well as closed forms can, and measured; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trt_layermerge.importance.estimators.base import EstimationRequest, Estimator
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.progress import Progress
from trt_layermerge.resources.memory import Need


@dataclass(frozen=True)
class Fit(Estimator):
    """Fits are solved by least squares, merges are the product of their weights; the held-out loss is measured."""

    name = "fit"
    summary = "closed form"
    measures_widths = True

    def rows(self, request: EstimationRequest, progress: Progress) -> Iterator[ImportanceRow]:
        """Blocks that start at one tensor are measured together, as they share matrices."""
        from trt_layermerge.importance.oneshot import one_shot_rows

        return one_shot_rows(request)

    def width_rows(self, request: EstimationRequest, progress: Progress) -> Iterator[ImportanceRow]:
        """Which channels stay is chosen for what reads them, and that is solved again."""
        from trt_layermerge.importance.narrowed_rows import narrowed_rows

        return narrowed_rows(request)

    def needs(self, request: EstimationRequest, images: int) -> Need:
        """A system of equations is held as a whole."""
        from trt_layermerge.importance.oneshot import need_of

        return need_of(request, images)

    def work(self, request: EstimationRequest) -> Sequence[float]:
        """The first row of each start has the equations; others run what is left behind their blocks."""
        from trt_layermerge.importance.row_work import narrowed_work, one_shot_work

        return [*one_shot_work(request), *narrowed_work(request)]

    def seconds(self, request: EstimationRequest, per_image: float) -> float:
        """A choice runs what is left behind its block, half of the network on average; a start runs all of it."""
        choices, samples = request.choices, request.samples
        starts = len({(choice.block.chain, choice.block.start) for choice in choices})
        groups, widths = len({one.group for one in request.narrowed}), len(request.narrowed)
        images = starts * samples.calibration + (len(choices) + starts) * samples.held_out / 2
        return (images + groups * samples.calibration + widths * samples.held_out) * per_image
