"""The entry point: finds the command, and turns errors into one message and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import Any

import click

from trt_layermerge.cli.command_line import remember
from trt_layermerge.errors import Caution, ExitCode, LayerMergeError

COMMANDS = {
    "inspect": "Show what can be merged in a network, and why the rest cannot.",
    "profile": "Measure every candidate block on this device.",
    "importance": "Measure what each choice does to the network.",
    "solve": "Plan for a latency budget.",
    "compress": "Do the whole job: measure, plan, merge, fine-tune, prove, deliver.",
    "build": "Build an engine from ONNX.",
    "verify": "Check a delivered engine.",
    "compare": "Compare profiles, or deliveries, with their baselines.",
    "doctor": "Say what this machine has and lacks, and check itself.",
}
"""In the order of a job. Their modules load torch or ONNX Runtime, which takes seconds, so they are imported late."""

INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List all commands, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; but say first, not after seconds of imports, that the runtime it names is not here."""
        remember(ctx, args)
        for option, value in zip(args, [*args[1:], ""], strict=True):
            name = value if option == "--runtime" else option.removeprefix("--runtime=")
            if name and name != option and args[0] != "doctor":  # who looks for what is missing
                from trt_layermerge.runtimes import registry  # it loads numpy

                (registry.require_runtime if args[0] == "build" else registry.require_running)(name)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"trt_layermerge.cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="trt_layermerge")
def cli() -> None:
    """Make a trained CNN shallower and measurably faster on one particular device.

    compress does the whole job. The other commands are its stages; they share their files, so that what one has
    measured no other measures again.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    # Torch's threads sleep while they wait: where a core is taken by something else, spinning makes a step of training
    # several times slower on two threads than on one (decision 28). It is heard only before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files and layers may hold what no terminal takes
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.simplefilter("always", Caution)
        warnings.showwarning = _Shown(warnings.showwarning)  # type: ignore[assignment]
        _main(args)


def _main(args: Sequence[str] | None) -> None:
    try:
        cli.main(args=args, prog_name="trt-layermerge", standalone_mode=False)
    except LayerMergeError as error:
        _fail(str(error), int(error.exit_code))
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; the same command goes on where it stopped", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; nothing is left to say
        sys.exit(INTERRUPTED)
    except OSError as error:  # a full disk, a folder that may not be written to
        where = "" if error.filename is None else f"{error.filename}: "
        _fail(f"{where}{error.strerror or error}", int(ExitCode.BAD_INPUT))


class _Shown:
    """Prints what the user must know, once each, and leaves other warnings to what printed them before."""

    def __init__(self, others: Callable[..., None]) -> None:
        self._others, self._said = others, set[str]()

    def __call__(self, message: Warning | str, category: type[Warning], *place: Any) -> None:
        if not issubclass(category, Caution):
            self._others(message, category, *place)
        elif str(message) not in self._said:
            self._said.add(str(message))
            click.echo(f"warning: {message}", err=True)


def _fail(message: str, code: int) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
