"""``completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from trt_layermerge.cli.sections import OneOf, SectionedCommand

SHELLS = ("bash", "zsh", "fish")


@click.command("completion", cls=SectionedCommand)
@click.argument("shell", type=OneOf(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    r"""Print a script that lets SHELL complete commands, options and their values.

    \b
    bash: eval "$(trt-layermerge completion bash)"              in ~/.bashrc
    zsh:  eval "$(trt-layermerge completion zsh)"               in ~/.zshrc
    fish: trt-layermerge completion fish | source               in ~/.config/fish/config.fish
    """
    root, program = ctx.find_root(), str(ctx.find_root().info_name)
    kind = get_completion_class(shell)
    assert kind is not None, "click has all of SHELLS"
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"  # which click looks for when the program starts
    click.echo(kind(root.command, {}, program, variable).source())
