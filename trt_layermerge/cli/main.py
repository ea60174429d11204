"""The entry point: finds the command, and turns errors into one message and an exit code."""

from __future__ import annotations

import importlib
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from io import TextIOWrapper

import click
from click.shell_completion import shell_complete

from trt_layermerge.cli.command_line import keep_command_line
from trt_layermerge.cli.logs import Logs
from trt_layermerge.cli.termination import terminated_as_interrupted
from trt_layermerge.errors import Caution, ExitCode, LayerMergeError, did_you_mean
from trt_layermerge.extras import installed_version
from trt_layermerge.log import record
from trt_layermerge.usercode import ended_by_us_alone

_LOG = logging.getLogger(f"{__package__}.main")  # by its name where it runs as __main__, too

PROGRAM = "trt-layermerge"
_COMPLETE = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"
"""The variable in which a shell says what it wants completed, as click names it."""

COMMANDS = {
    "inspect": "Show what can be merged in a network, and why the rest cannot.",
    "profile": "Measure every candidate block on this device.",
    "importance": "Measure what each choice does to the network.",
    "solve": "Plan for a latency budget.",
    "compress": "Do the whole job: measure, plan, merge, fine-tune, prove, deliver.",
    "build": "Build an engine from ONNX.",
    "verify": "Check a delivered engine.",
    "deploy": "Write a delivery for Triton, DeepStream, Python or MLflow.",
    "compare": "Compare profiles, or deliveries, with their baselines.",
    "doctor": "Say what this machine has and lacks, and check itself.",
    "completion": "Print a script that lets your shell complete commands and options.",
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
        keep_command_line(ctx, args)
        for option, value in zip(args, [*args[1:], ""], strict=True):
            name = value if option == "--runtime" else option.removeprefix("--runtime=")
            asked = name and name != option and not ctx.resilient_parsing  # which is a shell that completes
            if asked and args[0] != "doctor":  # who looks for what is missing
                from trt_layermerge.runtimes import registry  # it loads numpy

                (registry.require_runtime if args[0] == "build" else registry.require_running)(name)
        if args[0] not in COMMANDS and not ctx.resilient_parsing:
            hint = did_you_mean(args[0], COMMANDS)  # older versions of click have none
            ctx.fail(f"No such command {args[0]!r}.{f' {hint[0].upper()}{hint[1:]}' if hint else ''}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"trt_layermerge.cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command


def _tell_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    """Print our version, and those of the libraries that engines run in."""
    if not wanted or ctx.resilient_parsing:
        return
    from trt_layermerge.runtimes.registry import runtime_kinds  # it loads numpy

    click.echo(f"trt-layermerge, version {version('trt_layermerge')}")
    for kind in runtime_kinds():
        found = [f"{name} {number}" for name in kind.packages if (number := installed_version(name))]
        click.echo(f"  {kind.name:<17} {found[0] if found else 'not installed'}")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_tell_version,
    help="Show our version and those of the runtimes, and exit.",
)
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
            if args is None:  # a process of our own, in which code of the user's may close them
                stream.close = lambda: None  # type: ignore[method-assign]
    ending = args is None
    with terminated_as_interrupted(), warnings.catch_warnings(), Logs() as logs, ended_by_us_alone(ending=ending):
        warnings.simplefilter("ignore", Caution)  # they are in the log, which is shown
        if asked := os.environ.get(_COMPLETE):
            sys.exit(shell_complete(cli, {"obj": logs}, PROGRAM, _COMPLETE, asked))
        _main(list(sys.argv[1:] if args is None else args), logs)


def _main(args: list[str], logs: Logs) -> None:
    command = shlex.join([PROGRAM, *args])
    try:
        with cli.make_context(PROGRAM, args, obj=logs) as context:  # click's own main ends the process by itself
            cli.invoke(context)
    except LayerMergeError as error:
        _fail(str(error), int(error.exit_code), command, error)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except SystemExit as stop:  # no end of ours, which are all here
        said = f"code that is not ours ends the process, with SystemExit: {stop.code}"
        _fail(said, int(ExitCode.BAD_INPUT), command, stop)
    except click.ClickException as error:
        error.show()
        about = {"command": command, "exit_code": error.exit_code}
        record(_LOG.error, "usage", "%s", error.format_message(), **about)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt) as error:
        if sys.stderr.isatty():
            click.echo(err=True)  # the line begins with ^C
        _fail(f"interrupted; the same command goes on where it stopped:\n  {command}", INTERRUPTED, command, error)
    except BrokenPipeError:
        type(sys.stderr).close(sys.stderr)  # whoever read our output has gone; nothing is left to say
        sys.exit(INTERRUPTED)
    except OSError as error:  # a full disk, a folder that may not be written to
        where = "" if error.filename is None else f"{error.filename}: "
        _fail(f"{where}{error.strerror or error}", int(ExitCode.BAD_INPUT), command, error)
    except Exception as error:  # a bug of ours, which keeps its traceback
        _LOG.critical("%s", type(error).__name__, exc_info=error, extra={"event": "crash"})
        raise


def _fail(message: str, code: int, command: str, error: BaseException) -> None:
    about = {"command": command, "exit_code": code, "error": type(error).__name__}
    _LOG.error("%s", message, exc_info=error, extra={"event": "error", "fields": about})
    sys.exit(code)


if __name__ == "__main__":
    main()
