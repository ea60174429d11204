"""A teacher that is asked once: rows of one seed see the same batches, and what it says of them is kept."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trt_layermerge.files import replacing


class RememberedTeacher(nn.Module):
    """Answers from a file where it knows the inputs, by their very bits, and computes where it does not.

    Args:
        network: The teacher, of one input.
        path: The file, which need not exist.
    """

    def __init__(self, network: nn.Module, path: Path) -> None:
        super().__init__()
        self.network, self._path, self._new = network, path, 0
        self._said: dict[str, Tensor] = load_file(path) if path.exists() else {}

    def forward(self, x: Tensor) -> Tensor:
        """What the network makes of ``[batch, ...]``."""
        key = blake2b(x.contiguous().numpy().data, digest_size=16).hexdigest()
        if key not in self._said:
            self._said[key] = self.network(x).detach().contiguous()
            self._new += 1
        return self._said[key]

    def keep(self) -> None:
        """Write what it has said."""
        if self._new:
            with replacing(self._path) as neighbour:
                save_file({key: torch.clone(said) for key, said in self._said.items()}, neighbour)
            self._new = 0
