"""Methods by name; entry points stand in for other packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint

import pytest

from tests.planning.methods.test_base import Weighted
from trt_layermerge.errors import UsageError
from trt_layermerge.planning.methods import registry
from trt_layermerge.planning.methods.depth import Depth
from trt_layermerge.planning.methods.registry import (
    DEFAULT_METHOD,
    METHOD_GROUP,
    method_named,
    method_names,
    registered_methods,
)

Register = Callable[..., None]


def forget() -> None:
    registry._registered.cache_clear()
    registry._found.cache_clear()


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """Entry points that are there while a test runs, by name."""

    def installed(**values: str) -> None:
        points = [EntryPoint(name, value, METHOD_GROUP) for name, value in values.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: points if group == METHOD_GROUP else [])
        forget()

    yield installed
    monkeypatch.undo()
    forget()


def test_every_name_leads_to_its_method() -> None:
    assert method_names()[:4] == ("joint", "layermerge", "depth", "layer-only") and DEFAULT_METHOD in method_names()
    for name in method_names():
        assert method_named(name).name == name


@pytest.mark.parametrize(("name", "hint"), [("layermerg", "did you mean 'layermerge'"), ("?", "joint, layermerge")])
def test_an_unknown_method_gets_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        method_named(name)


def test_settings_are_those_of_the_method() -> None:
    assert method_named("depth", {"alpha": 0.5}) == Depth(alpha=0.5) != method_named("depth")
    with pytest.raises(UsageError, match=r"method joint has no setting alpha: that is of depth(?s:.*)--method depth"):
        method_named("joint", {"alpha": 0.5})
    with pytest.raises(UsageError, match=r"method joint has no setting beta\Z"):
        method_named("joint", {"beta": 0.5})


def test_another_package_registers_its_own(register: Register) -> None:
    register(weighted=f"{Weighted.__module__}:Weighted")
    assert method_names()[-1] == "weighted" and method_named("weighted", {"rounds": 4}) == Weighted(rounds=4)
    assert registered_methods()[-1] == Weighted()


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("no.such.module:Method", "cannot be loaded from no.such.module:Method: No module named 'no'"),
        ("pathlib:Path", "is registered as method 'odd', and is none of that name"),
        (f"{Weighted.__module__}:Weighted", "is registered as method 'odd', and is none of that name"),
        ("trt_layermerge.planning.methods.base:Method", "cannot be loaded .*abstract"),
    ],
)
def test_what_is_no_method_is_an_error_to_those_who_name_it(register: Register, value: str, fault: str) -> None:
    register(odd=value)
    with pytest.raises(UsageError, match=fault):
        method_named("odd")
    assert "odd" in method_names() and [one.name for one in registered_methods()] == list(method_names()[:-1])


def test_a_name_that_two_packages_register_is_of_neither(register: Register) -> None:
    register(joint=f"{Weighted.__module__}:Weighted")
    with pytest.raises(UsageError, match=r"several packages register a method 'joint': .*joint:Joint, .*Weighted"):
        method_named("joint")
    assert method_named("depth") == Depth()
