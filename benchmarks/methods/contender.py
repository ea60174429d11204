"""What a method must answer to be compared: a ladder of networks, and how each of them becomes a trained one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from trt_layermerge.training.recipe import Recipe

from .bench import Bench


@dataclass(frozen=True)
class Rung(ABC):
    """A network that a method can make, not trained yet.

    Attributes:
        name: What it is, in letters that a file may have: equal names are equal networks, of whatever method.
        predicted: How many times as fast the method says it is; ``None`` where it does not say.
    """

    name: str
    predicted: float | None

    @property
    def alike(self) -> str:
        """Names all rungs that are known to have its shapes; by default itself alone."""
        return self.name

    @property
    def trainable(self) -> Rung:
        """The same as it is where training follows."""
        return self

    @abstractmethod
    def shape(self, bench: Bench) -> nn.Module:
        """What is timed: in evaluation mode, its weights any."""

    @abstractmethod
    def start(self, bench: Bench) -> nn.Module:
        """What is trained."""

    @abstractmethod
    def finish(self, bench: Bench, trained: nn.Module) -> nn.Module:
        """What is delivered of a trained start: its norms folded, in evaluation mode."""

    def recipe(self, recipe: Recipe) -> Recipe:
        """How it trains; by default as all do."""
        return recipe


@dataclass(frozen=True)
class Contender(ABC):
    """A method with its settings.

    Attributes:
        setting: What it is set to, in words; empty where there is nothing to set.
    """

    setting: str

    @abstractmethod
    def rungs(self, bench: Bench) -> Iterator[Rung]:
        """Its networks, the least changed first: of those that meet a budget the first is its answer."""
