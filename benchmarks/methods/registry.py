"""The methods that are compared, by name: those that people meet first come first."""

from __future__ import annotations

from dataclasses import dataclass

from .contender import Contender
from .iterative_pruning import IterativePruning
from .planned import Planned
from .pruning import TorchPruning
from .ruled import EvenCut, WholeBlocks


@dataclass(frozen=True)
class Method:
    """A row's method.

    Attributes:
        title: In the table.
        settings: One of them is picked on held-out data; none where it only converts what another one made.
        converts: The method whose trained network it converts to INT8; the original's where that is empty.
    """

    title: str
    settings: tuple[Contender, ...] = ()
    converts: str | None = None


METHODS = {
    "joint": Method(
        "ours, depth", (Planned("choices not trained", "joint"), Planned("choices trained", "joint", trained=True))
    ),
    "joint-width": Method(
        "ours, depth and width",
        (Planned("all widths", "joint", widths=0), Planned("half of the channels or all", "joint", widths=1)),
    ),
    "torch-pruning": Method("Torch-Pruning 1.6", (*TorchPruning.settings(), *IterativePruning.settings())),
    "width": Method("ours, width alone", (Planned("", "width", widths=0),)),
    "layermerge": Method(
        "LayerMerge (ICML 2024)",
        (
            Planned("choices trained", "layermerge", "linearised", trained=True),
            Planned("choices not trained", "layermerge", "linearised"),
        ),
    ),
    "depth": Method("depth compression (ICML 2023)", (Planned("", "depth", "linearised"),)),
    "layer-only": Method("layers dropped (LayerOnly)", (Planned("", "layer-only", "linearised"),)),
    "elc": Method("ELC (TIP 2023), our reading", (Planned("", "depth", "decoupled"),)),
    "whole-blocks": Method("whole blocks merged (DepthShrinker)", (WholeBlocks(""),)),
    "even-cut": Method("even cut of depth", (EvenCut(""),)),
    "int8": Method("INT8 alone", converts=""),
    "joint-int8": Method("ours, depth, and INT8", converts="joint"),
    "joint-width-int8": Method("ours, depth and width, and INT8", converts="joint-width"),
}
