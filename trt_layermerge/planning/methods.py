"""From raw measurements to a problem: each method says which candidates it admits and what they are worth to it.

Tables hold losses as they were measured; how a published system normalises them is part of its method. A new method
is a ``Valued`` with two functions of its own, or a class with a name and a ``problem``, and a place in ``METHODS``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from trt_layermerge.errors import UsageError
from trt_layermerge.planning.candidate import Candidate, Method
from trt_layermerge.planning.depth import Depth
from trt_layermerge.planning.problem import Problem

__all__ = ["DEFAULT", "DEPTH", "JOINT", "LAYERMERGE", "LAYER_ONLY", "METHODS", "Candidate", "Method", "Valued"]
__all__ += ["formulate", "method_named"]

DEFAULT = "joint"


@dataclass(frozen=True)
class Valued:
    """A method that admits candidates and values them one by one.

    Attributes:
        name: Name of the method.
        admits: Whether the method knows such a choice.
        value: What the choice is worth by its losses; an importance that was given is taken as it is.
    """

    name: str
    admits: Callable[[Candidate], bool]
    value: Callable[[Candidate], float]

    def problem(
        self, lengths: Sequence[int], candidates: Iterable[Candidate], fixed_ns: int, original_ns: int
    ) -> Problem:
        """The admitted candidates with their values; see ``Method``."""
        items = (
            one.item(self.value(one) if one.importance is None else one.importance)
            for one in candidates
            if self.admits(one)
        )
        return Problem(tuple(lengths), tuple(items), fixed_ns, original_ns, self.name)


def _in_layermerge(candidate: Candidate) -> bool:
    return candidate.kind in {"keep", "merge"} or (candidate.kind == "identity" and candidate.droppable)


def _in_layer_only(candidate: Candidate) -> bool:
    dropped = candidate.kind == "identity" and candidate.droppable and candidate.end == candidate.start + 1
    return candidate.kind == "keep" or dropped


def _exp_gain(candidate: Candidate) -> float:
    """exp(performance after - before), performance being minus the loss (arXiv 2406.12837, section 4.1)."""
    try:
        return math.exp(candidate.gain)
    except OverflowError:
        return math.inf  # which the problem refuses, naming the item


JOINT = Valued("joint", admits=lambda candidate: True, value=lambda candidate: candidate.gain)
"""Ours: every choice there is, valued by the change of the loss; changes of the loss add up, to first order.

    M[l, t] = max over blocks (k, l] and their choices c with T[k, l, c] <= t of M[k, t - T[k, l, c]] + I[k, l, c]

with M[0, t] = 0 and I = loss before - loss after. It is solved for all t at once, by ``frontier``.
"""

LAYERMERGE = Valued("layermerge", admits=_in_layermerge, value=_exp_gain)
"""LayerMerge (Kim et al., ICML 2024, arXiv 2406.12837, section 4): keep, merge or drop.

    M[l, t] = max over blocks (k, l] and merged kernels c with T[k, l, c] <= t of M[k, t - T[k, l, c]] + I[k, l, c]

with M[0, t] = 0 and I the exponential of the change in performance. The kernel c stands for which convolutions of the
block are kept. The paper rounds T down to bins; ``reference.discretised`` has its bins, but rounds up.
"""

LAYER_ONLY = Valued("layer-only", admits=_in_layer_only, value=_exp_gain)
"""LayerOnly (the layer-pruning baseline of arXiv 2406.12837): removes convolutions, merges nothing.

    M[l, t] = max( M[l - 1, t - T[l]] + I[l],  M[l - 1, t - T0[l]] + I0[l] where layer l can be dropped )

with T, I of the layer as it is, and T0, I0 of what is left of it when its convolution is gone and its activation stays:
a knapsack with one yes or no for each layer. That only convolutions are removed is the paper's; the recurrence is ours,
and so is the exponential scale, taken over from the method that it is compared with.
"""

DEPTH = Depth()
"""Depth compression (ICML 2023, arXiv 2301.12187): removes activations only, in two stages; see ``Depth``."""

METHODS: Mapping[str, Method] = MappingProxyType({one.name: one for one in (JOINT, LAYERMERGE, DEPTH, LAYER_ONLY)})


def method_named(name: str) -> Method:
    """The method of a name.

    Raises:
        UsageError: There is none.
    """
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name, METHODS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METHODS)}"
    raise UsageError(f"there is no method {name!r}", hint=hint)


def formulate(
    method: str | Method, lengths: Sequence[int], candidates: Iterable[Candidate], fixed_ns: int, original_ns: int
) -> Problem:
    """The problem of some candidates as a method sees it; for arguments and errors see ``Method.problem``.

    Raises:
        UsageError: There is no method of that name.
        InputError: The candidates make no problem.
    """
    chosen = method_named(method) if isinstance(method, str) else method
    return chosen.problem(lengths, candidates, fixed_ns, original_ns)
