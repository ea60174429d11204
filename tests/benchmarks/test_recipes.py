"""Processes that share the trials of recipes: each ends with all that was asked for, whoever trained it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.methods import recipes
from benchmarks.methods.recipes import Variant
from trt_layermerge.errors import DivergedError, InputError, TaskError
from trt_layermerge.files import write_json
from trt_layermerge.locks import exclusive
from trt_layermerge.training.recipe import Recipe

VARIANTS = [Variant("as it is"), Variant("lr=0.02"), Variant("lr=0.3")]
SCORE = {"loss": 0.5, "accuracy": 0.8}


@dataclass
class Here:
    """This process, whose training is made up.

    Attributes:
        bench: Of a folder.
        trained: The variants that it trained, in order.
        fails: What training raises, by variant.
    """

    bench: Any
    trained: list[str]
    fails: dict[str, Exception]

    def train(self) -> None:
        recipes.train(self.bench, VARIANTS, ["ours:2"], 1, None)

    def place(self, variant: str) -> Path:
        return self.bench.trained / "variants" / f"{variant} ours:2 all 0".replace(" ", "_")

    @property
    def rows(self) -> list[str]:
        return list(recipes.table(self.bench.trained / "variants"))[2:]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    bench = SimpleNamespace(trained=tmp_path, case=SimpleNamespace(recipe=Recipe()))
    made = Here(bench, [], {})

    def score(_maker: Any, variant: Variant, *_: Any) -> dict[str, Any]:
        made.trained.append(variant.name)
        if variant.name in made.fails:
            raise made.fails[variant.name]
        return SCORE

    monkeypatch.setattr(recipes, "Maker", lambda bench: SimpleNamespace(bench=bench))
    monkeypatch.setattr(recipes, "_rung", lambda _maker, text: SimpleNamespace(name=text))
    monkeypatch.setattr(recipes, "_score", score)
    return made


Held = Callable[[str, bool], None]


@pytest.fixture
def elsewhere(here: Here, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """Another process that is at a variant until it is waited for: then it is done, or was killed."""
    with ExitStack() as all_held:
        held: dict[Path, tuple[ExitStack, bool]] = {}

        def hold(variant: str, finishes: bool) -> None:
            stack = all_held.enter_context(ExitStack())
            stack.enter_context(exclusive(here.place(variant)))
            held[here.place(variant)] = stack, finishes

        def asked(folder: Path, *, wait: bool = False) -> AbstractContextManager[None]:
            if wait and folder in held:
                assert len(here.trained) == len(VARIANTS) - 1, "all else is done before anything is waited for"
                stack, finishes = held.pop(folder)
                if finishes:
                    name = next(one.name for one in VARIANTS if here.place(one.name) == folder)
                    write_json(folder / "score.json", {"variant": name, "network": "ours:2", **SCORE})
                stack.close()
            return exclusive(folder, wait=wait)

        monkeypatch.setattr(recipes, "exclusive", asked)
        yield hold


def test_what_another_process_is_at_is_waited_for(here: Here, elsewhere: Held) -> None:
    """The table lacked it, and the process had ended."""
    elsewhere("as it is", True)
    here.train()
    assert here.trained == ["lr=0.02", "lr=0.3"] and len(here.rows) == 3


def test_what_another_process_left_undone_is_done(here: Here, elsewhere: Held) -> None:
    elsewhere("lr=0.02", False)
    here.train()
    assert here.trained == ["as it is", "lr=0.3", "lr=0.02"] and len(here.rows) == 3
    here.train()
    assert len(here.trained) == 3


@pytest.mark.parametrize("error", [TaskError("no such image"), InputError("no such file")])
def test_an_error_of_a_training_is_no_other_process(here: Here, error: Exception) -> None:
    here.fails["lr=0.02"] = error
    with pytest.raises(InputError) as raised:
        here.train()
    assert raised.value is error


def test_what_diverges_is_said_in_the_table_and_not_tried_again(here: Here) -> None:
    here.fails["lr=0.3"] = DivergedError("the loss is nan")
    for _ in range(2):
        here.train()
    assert here.trained == [one.name for one in VARIANTS]
    assert here.rows == [
        "| as it is | 80.00%, 0.5000 (1) |",
        "| lr=0.02 | 80.00%, 0.5000 (1) |",
        "| lr=0.3 | 1 diverged |",
    ]
