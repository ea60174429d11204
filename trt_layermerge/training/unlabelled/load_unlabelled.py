"""Samples without labels by where they lie: a folder of images, ``FILE.npy``, or ``FILE.py`` that yields them."""

from __future__ import annotations

from pathlib import Path

from trt_layermerge.errors import TaskError
from trt_layermerge.training.unlabelled.arrays import ARRAY, FUNCTION, Arrays
from trt_layermerge.training.unlabelled.comparing import Comparing
from trt_layermerge.training.unlabelled.image_files import ImageFiles
from trt_layermerge.training.unlabelled.metric_file import MetricFile
from trt_layermerge.training.unlabelled.samples import SampleSet
from trt_layermerge.training.unlabelled.unlabelled_task import Agreement
from trt_layermerge.training.userfile import file_and_function


def unlabelled(place: Path, comparing: Comparing) -> Agreement:
    """The task of staying near to the original on some samples.

    Args:
        place: A folder, ``FILE.npy``, ``FILE.py`` or ``FILE.py:function``.
        comparing: How they are prepared, and outputs compared.

    Raises:
        TaskError: There is nothing of the kind, or it cannot be read.
        RuntimeNotAvailableError: What reads it is not installed.
    """
    metric = None if comparing.metric is None else MetricFile.load(comparing.metric)
    return Agreement.of(place.resolve().name, _samples(place, comparing), comparing.distances, metric)


def _samples(place: Path, comparing: Comparing) -> SampleSet:
    if place.is_dir():
        return ImageFiles.below(place, comparing.preprocessing)
    if place.suffix == ARRAY:
        return Arrays.of_file(place, comparing.preprocessing)
    file, function = file_and_function(place, FUNCTION)
    if file.suffix == ".py":
        return Arrays.of_function(file, function, comparing.preprocessing)
    raise TaskError(
        f"there are no images at {place}", hint="name a folder of images, FILE.npy, or FILE.py that yields arrays"
    )
