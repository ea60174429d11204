"""Which network stands for a method at a budget, and which file of it is timed in the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import fx, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.methods import ladder as module
from benchmarks.methods.contender import Contender, Rung
from benchmarks.methods.final_timing import onnx_of
from benchmarks.methods.ladder import FIRST, ORIGINAL, SURE, Ladder
from benchmarks.methods.registry import Method
from trt_layermerge.errors import InputError
from trt_layermerge.latency.policy import MeasurementPolicy

SPEEDS = {"wide": 1.90, "lucky": 1.96, "fast": 2.02, "tiny": 9.0}
"""How many times as fast as the original."""


@dataclass(frozen=True)
class Width(Rung):
    """A network of so many channels."""

    channels: int

    def shape(self, bench: Any) -> nn.Module:
        return nn.Conv2d(3, self.channels, 1)

    def start(self, bench: Any) -> nn.Module:
        raise AssertionError("nothing is trained here")

    def finish(self, bench: Any, trained: nn.Module) -> nn.Module:
        raise AssertionError("nothing is trained here")


class Narrowing(Contender):
    """Networks of ever fewer channels."""

    def rungs(self, bench: Any) -> Iterator[Rung]:
        yield from (Width(name, None, 9 - number) for number, name in enumerate(SPEEDS))


class Bench:
    """Has networks written as their names, and engines that are names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.case = SimpleNamespace(budgets=(1.5, 2.0), untrained=(2.0,))
        self.widest = SimpleNamespace(network=SimpleNamespace(module=fx.symbolic_trace(nn.Sequential())))
        self.trained, self.original = folder / "recipe", folder / "original.onnx"
        self.delivered: list[int] = []

    def sketch(self, network: nn.Module, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        named = dict(zip((9, 8, 7, 6), SPEEDS, strict=True))
        path.write_text(named[network.out_channels] if isinstance(network, nn.Conv2d) else ORIGINAL)

    def write(self, network: nn.Conv2d, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("exported")
        self.delivered.append(network.out_channels)

    def built(self, path: Path) -> str:
        return path.read_text()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """One method; where a network is timed shortly, ``lucky`` seems to be 4 % faster than it is."""

    def compare(engines: Mapping[str, str], policy: MeasurementPolicy) -> dict[str, Any]:
        seen = SPEEDS | {"lucky": SPEEDS["lucky"] * (1.04 if policy == FIRST else 1.0)}
        asked.append((policy, sorted(engines.values())))
        return {key: SimpleNamespace(median_ns=1e6 / seen.get(name, 1.0)) for key, name in engines.items()}

    asked: list[tuple[MeasurementPolicy, list[str]]] = []
    monkeypatch.setattr(module, "compare", compare)
    monkeypatch.setattr(module, "METHODS", {"narrow": Method("a method", (Narrowing(""),))})
    made = Bench(tmp_path)
    made.asked = asked  # type: ignore[attr-defined]
    return made


def test_a_network_whose_short_timing_erred_in_its_favour_stands_for_nothing(bench: Any) -> None:
    ladder = Ladder(bench)
    ladder.make(["narrow"])
    ladder.climb(["narrow"], [2.0])
    found = Ladder(bench).answer(Narrowing(""), 2.0)
    assert found is not None
    assert found.name == "fast"
    sure = [engines for policy, engines in bench.asked if policy == SURE]
    assert sure == [["lucky", ORIGINAL], ["fast", ORIGINAL]], "the others answer nothing, and are timed once"
    assert len(bench.asked) == 3


def test_what_was_timed_for_longer_is_not_timed_again(bench: Any) -> None:
    Ladder(bench).make(["narrow"])
    for _ in range(2):
        Ladder(bench).climb(["narrow"], [2.0])
    assert len(bench.asked) == 3
    Ladder(bench).climb(["narrow"])  # all budgets of the network
    assert bench.asked[3:] == [(SURE, [ORIGINAL, "wide"])]


def test_a_row_that_was_trained_elsewhere_is_timed_as_it_would_be_delivered(bench: Any) -> None:
    """And one that was trained here by its own file."""
    ladder = Ladder(bench)
    row = {"method": "narrow", "network": "fast"}
    path, precision = onnx_of(ladder, row)
    assert (path.read_text(), precision, bench.delivered) == ("exported", "fp32", [7])
    onnx_of(ladder, row)
    assert bench.delivered == [7], "written once"

    own = bench.trained / "networks" / "fast-seed-0" / "network.onnx"
    own.parent.mkdir(parents=True)
    own.write_text("trained")
    assert onnx_of(ladder, row)[0] == own
    assert onnx_of(ladder, {"method": "int8", "network": "original-int8"}) == (
        bench.folder / "original.int8.onnx",
        "int8",
    )


def test_a_row_of_a_network_that_its_method_has_not_any_more_is_named(bench: Any) -> None:
    with pytest.raises(InputError, match="a row of narrow is of gone") as caught:
        onnx_of(Ladder(bench), {"method": "narrow", "network": "gone"})
    assert str(bench.trained / "rows") in str(caught.value.hint)
