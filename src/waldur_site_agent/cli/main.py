"""``waldur-site-agent``: everything the agent can do, as subcommands."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

import click
from click.shell_completion import get_completion_class

from waldur_site_agent import __version__
from waldur_site_agent.cli import aliases
from waldur_site_agent.cli.commands import import_group, sync_limits
from waldur_site_agent.cli.install import health, init_command, install_services
from waldur_site_agent.cli.run import (
    RunOptions,
    check_configuration,
    mode_option,
    offering_option,
    print_configuration,
    removals_option,
    run,
)
from waldur_site_agent.cli.start import (
    colour_settings,
    config_option,
    give_up,
    interruptible,
    reference_command,
    schema_command,
    version_option,
)
from waldur_site_agent.cli.usage import usage_group

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


@click.group(context_settings={"help_option_names": ["-h", "--help"]} | colour_settings())
@version_option
def main() -> None:
    """Makes Waldur's marketplace orders come true at this site, and keeps them true.

    Start with `config check`, then `diagnose`, then `plan` to see what would be done, and only
    then `run`.
    """


@main.command("run")
@mode_option
@config_option
@click.option("--once", is_flag=True, help="Do one cycle, then exit.")
@offering_option
@removals_option
def run_command(
    mode: str, config_file: Path, once: bool, offerings: tuple[str, ...], allow_removals: bool
) -> None:
    """Run the agent, as a service or for one cycle."""
    options = RunOptions(
        mode=mode,
        config_file=config_file,
        once=once,
        offerings=offerings,
        allow_removals=allow_removals,
    )
    sys.exit(run(options))


@main.command("plan")
@mode_option
@config_option
@offering_option
@removals_option
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or for machines.",
)
@click.option(
    "--exit-code",
    is_flag=True,
    help="Say by the exit code, too, when the plan is refused (3) or has trouble in it (1).",
)
def plan_command(
    mode: str,
    config_file: Path,
    offerings: tuple[str, ...],
    allow_removals: bool,
    output: str,
    exit_code: bool,
) -> None:
    """Print what the next cycle would do; change nothing on either side."""
    options = RunOptions(
        mode=mode,
        config_file=config_file,
        dry_run=True,
        offerings=offerings,
        allow_removals=allow_removals,
        exit_code=exit_code,
        output=output,
    )
    sys.exit(run(options))


@main.group("config")
def config_group() -> None:
    """Look at the configuration."""


@config_group.command("check")
@config_option
@click.option(
    "--show",
    is_flag=True,
    help="Print the file with every default filled in, secrets masked, instead of a summary.",
)
def check_command(config_file: Path, *, show: bool) -> None:
    """Check the file and say which backend does what for each offering.

    Nothing but the file is looked at. Exit codes: 0 no error, 2 at least one; all are printed.
    """
    if show:
        print_configuration(config_file)
    else:
        check_configuration(config_file)


config_group.add_command(schema_command)
config_group.add_command(reference_command)


@main.group("components")
def components_group() -> None:
    """The offering's components in Waldur."""


components_group.add_command(aliases.load_components, "load")
main.add_command(aliases.diagnostics, "diagnose")
main.add_command(completion_command)
main.add_command(init_command)
main.add_command(health)
main.add_command(install_services)
main.add_command(import_group)


@main.group("users")
def users_group() -> None:
    """The people who use the offering."""


users_group.add_command(aliases.sync_offering_users, "sync")


@main.group("homedirs")
def homedirs_group() -> None:
    """Home directories of the offering's users."""


homedirs_group.add_command(aliases.create_homedirs, "create")


@main.group("limits")
def limits_group() -> None:
    """Limits of the offering's resources."""


@limits_group.command("sync")
@click.option(
    "--to",
    type=click.Choice(["waldur", "backend"]),
    default="waldur",
    show_default=True,
    help="The side that is changed: Waldur gets what the accounts have, or accounts what was sold.",
)
@config_option
@offering_option
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
def limits_sync_command(
    to: Literal["waldur", "backend"],
    config_file: Path,
    offerings: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Make limits that differ the same on both sides, once.

    Whatever the file's limits says for every cycle. Resources that an order decides about, shared
    accounts, and limits that a periodic policy of Waldur owns are left as they are and named.
    """
    sys.exit(sync_limits(config_file, offerings, to=to, dry_run=dry_run))


main.add_command(usage_group)


def _sandbox_command(name: str, short_help: str) -> click.Command:
    """A command of the sandbox's distribution; it is loaded when it is used, if it is there."""

    @click.command(
        name,
        short_help=short_help,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def command(context: click.Context, arguments: tuple[str, ...]) -> None:
        found = entry_points(group="waldur_site_agent.commands", name=name)
        if not found:
            give_up(
                f"{name} is part of waldur-site-agent-sandbox, which is not installed; in a "
                "checkout: pip install . ./plugins/sandbox ./plugins/slurm; from wheels: "
                f'pip install --find-links DIR "waldur-site-agent[sandbox,slurm]=={__version__}"'
            )
        with interruptible():
            loaded: click.Command = next(iter(found)).load()
            with loaded.make_context(name, [*arguments], parent=context.parent) as own:
                loaded.invoke(own)

    return command


main.add_command(_sandbox_command("demo", "Watch orders become accounts on a simulated cluster."))
main.add_command(_sandbox_command("sandbox", "Serve a small Waldur to try a configuration with."))
