"""Completion of commands and options in the user's shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "waldur-site-agent"
_VARIABLE = "_WALDUR_SITE_AGENT_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete the commands and options of the agent.

    For bash: waldur-site-agent completion bash > /etc/bash_completion.d/waldur-site-agent
    """
    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - click knows all three
        raise click.UsageError(f"click does not know the shell {shell}")
    click.echo(kind(context.find_root().command, {}, PROGRAM, _VARIABLE).source())
