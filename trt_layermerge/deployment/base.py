"""What a deployment is made from, and what makes one: a kind for each, in a file of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx

from trt_layermerge.delivery.per_network import PerNetwork
from trt_layermerge.errors import RuntimeNotAvailableError, UsageError
from trt_layermerge.runtimes.base import Device, RuntimeKind

OPEN = -1
"""A size that an engine leaves open."""


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: As in the engine.
        element: Its element type, one of ``onnx.TensorProto.DataType``.
        shape: With the batch; ``OPEN`` where a size is.
    """

    name: str
    element: int
    shape: tuple[int, ...]

    @property
    def numpy(self) -> str:
        """NumPy's name of the element type, such as ``float32``."""
        return str(onnx.helper.tensor_dtype_to_np_dtype(self.element))

    @property
    def onnx(self) -> str:
        """ONNX's name of it, such as ``FLOAT``."""
        return str(onnx.TensorProto.DataType.Name(self.element))


@dataclass(frozen=True)
class Delivered:
    """A verified delivery, as far as what loads it must know.

    Attributes:
        manifest: Path of its manifest.
        engine: Path of its engine.
        inputs: Of the engine, in order.
        outputs: Likewise.
        batches: Fewest and most samples of one run.
        device: What the engine was built for.
        kind: Of the runtime that runs it.
        figures: What a job claims of both networks: milliseconds, accuracy, and so on, by name; ``None`` for an engine
            on its own.
        settings: What else a job says: its model, task, budget's probability, versions, by name.
    """

    manifest: Path
    engine: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batches: tuple[int, int]
    device: Device
    kind: RuntimeKind
    figures: PerNetwork[dict[str, float]] | None
    settings: dict[str, str]

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on one."""
        return self.device.driver is not None or self.device.compute_capability is not None

    @property
    def any_batch(self) -> bool:
        """Whether it takes every batch from one sample on."""
        least, most = self.batches
        return least == 1 < most

    def shape(self, port: Port) -> tuple[int, ...]:
        """Of a port, with the batch open where the engine takes more than one."""
        return (OPEN, *port.shape[1:]) if self.batches[0] < self.batches[1] else port.shape


class DeploymentKind(ABC):
    """A way to deploy.

    Attributes:
        name: On the command line.
        purpose: What it is for, in words.
    """

    name: ClassVar[str]
    purpose: ClassVar[str]

    @abstractmethod
    def write(self, delivered: Delivered, name: str, folder: Path) -> Iterable[Path]:
        """Write the files.

        Args:
            delivered: What is deployed.
            name: Of the model.
            folder: Where to.

        Returns:
            The files.

        Raises:
            UsageError: The delivery cannot be expressed there.
            RuntimeNotAvailableError: Its runtime has no place there, or a package is missing.
        """


def refuse_runtime(delivered: Delivered, where: str, others: str) -> RuntimeNotAvailableError:
    """What to raise where a runtime has no place.

    Args:
        delivered: Whose runtime it is.
        where: What has no place for it.
        others: Runtimes that have one.
    """
    return RuntimeNotAvailableError(
        f"{where} cannot load engines of runtime {delivered.kind.name!r}",
        hint=f"build one with --runtime {others}",
    )


def require_name(name: str) -> str:
    """See that a model's name is one that folders and configurations take.

    Raises:
        UsageError: It is not.
    """
    if not name or not all(sign.isascii() and (sign.isalnum() or sign in "_-.") for sign in name) or name[0] in "-.":
        raise UsageError(f"{name!r} is no name of a model", hint="pass --name with letters, digits, '_', '-' and '.'")
    return name
