"""What a kind of runtime is told besides the model: values with the options that they are given by."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Self


@dataclass(frozen=True)
class SettingOption:
    """How a builder setting is given on the command line.

    Attributes:
        name: Of the option, such as ``--workspace``.
        help: What it does, in a few words.
        metavar: Of its value, such as its unit; empty for the usual one.
        least: Smallest value; ``None`` for no limit.
        most: Largest value; ``None`` for no limit.
        usual: What help says of the default, where that is no value.
    """

    name: str
    help: str
    metavar: str = ""
    least: int | None = None
    most: int | None = None
    usual: str = ""

    @property
    def key(self) -> str:
        """What the value is called among the arguments of a command."""
        return self.name.removeprefix("--").replace("-", "_")


def builder_setting(default: Any, name: str, help: str, **about: Any) -> Any:
    """A field of builder settings with its option; the arguments are those of ``SettingOption``."""
    return field(default=default, metadata={"option": SettingOption(name, help, **about)})


@dataclass(frozen=True)
class BuilderSettings:
    """What a kind's builder and timing are told besides the model. A kind that is told anything derives its own.

    Each field is made by ``builder_setting``; options, their help and their validation come from it.
    """

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name, option in self.options().items():
            value = getattr(self, name)
            low, high = (value if limit is None else limit for limit in (option.least, option.most))
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} is {value}, which is not within {option.least} and {option.most}")

    @classmethod
    def options(cls) -> dict[str, SettingOption]:
        """The option of each field."""
        return {one.name: one.metadata["option"] for one in fields(cls)}

    @classmethod
    def of(cls, given: BuilderSettings) -> Self:
        """What another kind's settings say to this one: the fields that both have."""
        return cls(**{name: getattr(given, name) for name in cls.options() if hasattr(given, name)})
