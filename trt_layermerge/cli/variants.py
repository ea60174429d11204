"""A command with an argument that is also the first word of others: ``profile MODEL`` and ``profile estimate``."""

from __future__ import annotations

import importlib
from typing import Any

import click

from trt_layermerge.cli.sections import SectionedCommand


class CommandWithVariants(SectionedCommand):
    """A command that hands over to another where its first argument is that one's name.

    A group cannot do it: its argument would take the name. A file called like a variant is ``./NAME``.

    Attributes:
        variants: Modules of the others, by name; each is imported when it is called.
    """

    variants: dict[str, str]

    def __init__(self, *args: Any, variants: dict[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.variants = variants

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        """The context of the command that is meant."""
        if args and args[0] in self.variants:
            command: click.Command = importlib.import_module(self.variants[args[0]]).command
            return command.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)
