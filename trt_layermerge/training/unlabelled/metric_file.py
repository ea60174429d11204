"""A metric of the user's own: how well outputs agree with the original's, such as by boxes or by edit distance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trt_layermerge.errors import TaskError
from trt_layermerge.training.task_check import described_value
from trt_layermerge.training.task_identity import source_digest
from trt_layermerge.training.userfile import file_and_function, with_function
from trt_layermerge.usercode import user_code

FUNCTION = "metric"
"""Name of the function that is called where none is given."""


@dataclass(frozen=True)
class MetricFile:
    """``metric(outputs, original_outputs)`` of a file: tensors by the outputs' names, ``[batch, ...]`` each.

    Attributes:
        file: The file.
        function: Itself.
        digest: Of the file, and of those beside it that it imports.
    """

    file: Path
    function: Any
    digest: str

    @classmethod
    def load(cls, path: Path) -> MetricFile:
        """Import it.

        Raises:
            TaskError: There is no such file or function, or the code raises.
        """
        file, name = file_and_function(path, FUNCTION)
        return with_function(
            file, name, "returns one number a sample", lambda function: cls(file, function, source_digest(file))
        )

    def __call__(self, outputs: Mapping[str, Tensor], original: Mapping[str, Tensor]) -> Tensor:
        """Of every sample, ``[batch]``, higher is better.

        Raises:
            TaskError: The code raises, or returns no tensor.
        """
        with user_code(f"the metric of {self.file}", TaskError):
            found = self.function(dict(outputs), dict(original))
        if not isinstance(found, Tensor):
            raise TaskError(
                f"the metric of {self.file} returns {described_value(found)}", hint="return a tensor [batch]"
            )
        return found.float()
