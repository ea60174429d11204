"""Every registered method passes the suite that is shipped, and the suite finds what is wrong with one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from trt_layermerge.planning.candidate import Candidate
from trt_layermerge.planning.methods.base import ChoiceTraits, Method, method_setting
from trt_layermerge.planning.methods.joint import Joint
from trt_layermerge.planning.methods.registry import method_named, method_names
from trt_layermerge.testing.methods import MethodConformance


class TestRegisteredMethods(MethodConformance):
    @pytest.fixture(params=method_names())
    def method(self, request: pytest.FixtureRequest) -> Method:
        return method_named(request.param)


@dataclass(frozen=True)
class Sound(Joint):
    """Ours under another name, with a setting: nothing is wrong with it."""

    name = "sound"

    weight: float = method_setting(2.0, "Weight of the loss.")

    def value(self, candidate: Candidate) -> float:
        return self.weight * candidate.gain


@dataclass(frozen=True)
class Nameless(Sound):
    name = "joint"


@dataclass(frozen=True)
class Silent(Sound):
    fits = False


@dataclass(frozen=True)
class Boastful(Sound):
    def admits(self, choice: ChoiceTraits) -> bool:
        return choice.kind != "fit"


@dataclass(frozen=True)
class Restless(Sound):
    def admits(self, choice: ChoiceTraits) -> bool:
        return choice.kind != "keep"


@dataclass(frozen=True)
class Nosy(Sound):
    """It asks for what only measured choices have."""

    def admits(self, choice: ChoiceTraits) -> bool:
        return hasattr(choice, "latency_ns") or choice.kind == "keep"


@dataclass(frozen=True)
class Forgetful(Sound):
    """It admits fits, and plans without them."""

    def problem(self, lengths: Any, candidates: Any, fixed_ns: int, original_ns: int, groups: Any = ()) -> Any:
        known = [one for one in candidates if one.kind != "fit"]
        return super().problem(lengths, known, fixed_ns, original_ns, groups)


@dataclass(frozen=True)
class Greedy(Sound):
    """It plans with what it does not admit."""

    def admits(self, choice: ChoiceTraits) -> bool:
        return choice.kind in ("keep", "fit")

    def problem(self, lengths: Any, candidates: Any, fixed_ns: int, original_ns: int, groups: Any = ()) -> Any:
        return Joint().problem(lengths, candidates, fixed_ns, original_ns, groups)


@dataclass(frozen=True)
class Coy(Sound):
    """It narrows, and says that it does not."""

    narrows = False


@dataclass(frozen=True)
class Stiff(Sound):
    """It says that it narrows, and does not."""

    def offered(self, groups: Any) -> Any:
        return ()


@dataclass(frozen=True)
class Reversed(Sound):
    def value(self, candidate: Candidate) -> float:
        return -candidate.gain


@dataclass(frozen=True)
class Crowded(Sound):
    budget: float = method_setting(2.0, "Of latency, which there is an option for.")


FAULTS: list[tuple[type[Sound], str]] = [
    (Nameless, "test_its_name_is_its_own"),
    (Silent, "test_what_it_says_of_fits_is_so"),
    (Boastful, "test_what_it_says_of_fits_is_so"),
    (Restless, "test_every_layer_may_be_kept"),
    (Nosy, "test_a_choice_is_admitted_measured_or_not"),
    (Forgetful, "test_what_it_admits_can_be_planned"),
    (Greedy, "test_plans_tile_the_chains_with_what_it_admits"),
    (Coy, "test_what_it_says_of_widths_is_so"),
    (Stiff, "test_what_it_says_of_widths_is_so"),
    (Reversed, "test_a_smaller_loss_is_never_worth_less"),
    (Crowded, "test_settings_can_be_options"),
]


@pytest.mark.parametrize(("kind", "test"), FAULTS)
def test_a_fault_is_found(kind: type[Sound], test: str) -> None:
    getattr(MethodConformance(), test)(Sound())
    with pytest.raises(AssertionError):
        getattr(MethodConformance(), test)(kind())
