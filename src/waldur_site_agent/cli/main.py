"""``waldur-site-agent``: everything the agent can do, as subcommands."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Literal

import click

from waldur_site_agent.cli import legacy
from waldur_site_agent.cli.completion import completion_command
from waldur_site_agent.cli.describing import reference_command, schema_command
from waldur_site_agent.cli.imports import import_group
from waldur_site_agent.cli.init import init_command
from waldur_site_agent.cli.interrupts import interruptible
from waldur_site_agent.cli.maintenance import sync_limits
from waldur_site_agent.cli.running import (
    RunOptions,
    check_configuration,
    mode_option,
    offering_option,
    print_configuration,
    removals_option,
    run,
)
from waldur_site_agent.cli.services import health, install_services
from waldur_site_agent.cli.starting import colour_settings, config_option
from waldur_site_agent.cli.usage import usage_group
from waldur_site_agent.cli.versions import version_option

if TYPE_CHECKING:
    from pathlib import Path


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


components_group.add_command(legacy.load_components, "load")
main.add_command(legacy.diagnostics, "diagnose")
main.add_command(completion_command)
main.add_command(init_command)
main.add_command(health)
main.add_command(install_services)
main.add_command(import_group)


@main.group("users")
def users_group() -> None:
    """The people who use the offering."""


users_group.add_command(legacy.sync_offering_users, "sync")


@main.group("homedirs")
def homedirs_group() -> None:
    """Home directories of the offering's users."""


homedirs_group.add_command(legacy.create_homedirs, "create")


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


@main.command("demo")
@click.option("--keep", is_flag=True, help="Keep the sandbox running at the end, to look around.")
def demo_command(keep: bool) -> None:
    """Watch orders become Slurm accounts: an embedded Waldur and a simulated cluster.

    With BACKEND=moab in the environment, accounts and deposits of a simulated MOAB.
    """
    with interruptible():
        if os.environ.get("BACKEND", "slurm") == "moab":
            from waldur_site_agent.cli.demo_moab import demo_moab  # noqa: PLC0415 - as below

            sys.exit(demo_moab(keep=keep))
        from waldur_site_agent.cli.demo import demo  # noqa: PLC0415 - needs the sandbox extra

        sys.exit(demo(keep=keep))
