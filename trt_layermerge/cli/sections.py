"""Commands whose help lists options in sections, and the options that every command has."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from trt_layermerge.cli.logs import log_options
from trt_layermerge.errors import did_you_mean
from trt_layermerge.log import record

_LOG = logging.getLogger(__name__)

_F = TypeVar("_F", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]

OUTPUT, MESSAGES = "Files and output", "Messages"


def combined(*decorators: Decorator) -> Callable[[_F], _F]:
    """Several options as one decorator; help lists them in this order."""
    return lambda function: reduce(lambda inner, decorator: decorator(inner), reversed(decorators), function)


def section(title: str, *decorators: Decorator) -> Callable[[_F], _F]:
    """Several options as one decorator, under a title of their own in help."""

    def decorate(function: _F) -> _F:
        known = set(map(id, _parameters(function)))
        decorated = combined(*decorators)(function)
        for parameter in _parameters(decorated):
            if id(parameter) not in known:
                parameter.__dict__["section"] = title
        return decorated

    return decorate


def option(*names: str, help: str, usual: object = None, **about: Any) -> Decorator:
    """An option; ``usual`` is what help says of a default that is decided elsewhere than here."""
    if usual is not None:
        help = f"{help}  [default: {usual}]"
    return click.option(*names, help=help, **about)


class SectionedCommand(click.Command):
    """A command whose help has sections; ``--verbose``, ``--quiet`` and ``--log-json`` are in the last one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        holder: Any = section(MESSAGES, *log_options)(lambda: None)
        self.params += reversed(_parameters(holder))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options, section by section in the order of their first ones."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (line := parameter.get_help_record(ctx)) is not None:
                last = MESSAGES if "--help" in parameter.opts else "Options"
                sections.setdefault(parameter.__dict__.get("section", last), []).append(line)
        for title, lines in sections.items():
            with formatter.section(title):
                formatter.write_dl(lines)

    def invoke(self, ctx: click.Context) -> Any:
        """Log what is asked for, and do it."""
        record(_LOG.debug, "command", "%s begins", ctx.command_path, command=ctx.command_path, options=dict(ctx.params))
        return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; of a budget and a speed-up, the one on the command line goes before that of a file.

        Raises:
            BadParameter: One is empty, which is told before any of them has an effect.
        """
        if not ctx.resilient_parsing:  # a shell that completes asks about what is not written yet
            self._require_values(ctx, args)
        rest = super().parse_args(ctx, args)
        given = [name for name in ("budget", "speedup") if ctx.params.get(name) is not None]
        told = [name for name in given if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if len(given) == 2 and len(told) == 1:
            ctx.params[next(name for name in given if name not in told)] = None
        return rest

    def _require_values(self, ctx: click.Context, args: Sequence[str]) -> None:
        """See that nothing is empty, as ``--output "$FOLDER"`` is without the variable: as a path, that is here."""
        told, _, _ = self.make_parser(ctx).parse_args(list(args))
        for parameter in self.get_params(ctx):
            values = told.get(str(parameter.name))
            if "" in (values if isinstance(values, (list, tuple)) else (values,)):
                otherwise = "" if parameter.required else ", or leave it out"
                raise click.BadParameter(f"it is empty; give it a value{otherwise}.", ctx, parameter)


class Count(click.ParamType[int]):
    """A number from 1 to a limit so large that help need not speak of it.

    Args:
        most: The limit.
    """

    name = "number"

    def __init__(self, most: int) -> None:
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number.

        Raises:
            BadParameter: It is none, or out of range.
        """
        number = click.INT.convert(value, param, ctx)
        if not 1 <= number <= self.most:
            self.fail(f"{number} is not a number from 1 to {self.most}", param, ctx)
        return int(number)


class OneOf(click.Choice[str]):
    """One of some words; of others, the error names what is near."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word.

        Raises:
            BadParameter: It is none of them.
        """
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            hint = did_you_mean(str(value), self.choices)
            if hint is None:
                raise
            raise click.BadParameter(f"{error.message} {hint[0].upper()}{hint[1:]}", ctx, param) from error


def suggesting(words: Callable[[], Iterable[str]]) -> dict[str, Any]:
    """Words that a shell completes, of an option that takes others, too."""

    def complete(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
        return [CompletionItem(word) for word in words() if word.startswith(begun)]

    return {"shell_complete": complete}


def suggesting_files() -> dict[str, Any]:
    """Files, which a shell completes."""
    return {"shell_complete": lambda _ctx, _param, begun: [CompletionItem(begun, type="file")]}


def _parameters(function: Any) -> list[click.Parameter]:
    found: list[click.Parameter] = getattr(function, "__click_params__", [])
    return found
