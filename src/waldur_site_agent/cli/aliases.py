"""The commands under the names that sites have in their scripts and units."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from waldur_site_agent.cli.commands import (
    create_homes,
    diagnose_and_print,
    load_into_waldur,
    sync_limits,
    sync_users,
)
from waldur_site_agent.cli.run import (
    RunOptions,
    mode_option,
    offering_option,
    print_configuration,
    removals_option,
    run,
)
from waldur_site_agent.cli.start import colour_settings, config_option, version_option


@click.command("waldur_site_agent", context_settings={"help_option_names": ["-h", "--help"]})
@mode_option
@config_option
@click.option("--once", is_flag=True, help="Do one cycle, then exit.")
@click.option(
    "--check-config",
    is_flag=True,
    help="Print the configuration as it is understood, secrets masked, and exit.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Plan one cycle and print it; change nothing in Waldur or in the backend.",
)
@offering_option
@removals_option
@version_option
def agent(
    mode: str,
    config_file: Path,
    once: bool,
    check_config: bool,
    dry_run: bool,
    offerings: tuple[str, ...],
    allow_removals: bool,
) -> None:
    """Carry out Waldur's marketplace orders at this site.

    Without --once or --dry-run the agent works until it is told to stop (SIGTERM), and reads its
    configuration again on SIGHUP.

    Exit codes: 0 done, 1 something failed, 2 usage or configuration error, 3 refused by the guard.
    """
    if check_config:
        print_configuration(config_file)
        return
    options = RunOptions(
        mode=mode,
        config_file=config_file,
        once=once,
        dry_run=dry_run,
        offerings=offerings,
        allow_removals=allow_removals,
    )
    sys.exit(run(options))


@click.command("waldur_site_load_components")
@config_option
@offering_option
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
def load_components(config_file: Path, offerings: tuple[str, ...], dry_run: bool) -> None:
    """Create or update the offering's components in Waldur from backend_components."""
    sys.exit(load_into_waldur(config_file, offerings, dry_run=dry_run))


@click.command("waldur_sync_offering_users")
@config_option
@offering_option
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
def sync_offering_users(config_file: Path, offerings: tuple[str, ...], dry_run: bool) -> None:
    """Give usernames to people who have none, as username_management_backend makes them.

    Only for offerings that leave usernames to the service provider. Exit codes: 0 done,
    1 somebody got no username because something failed, 2 usage or configuration error.
    """
    sys.exit(sync_users(config_file, offerings, dry_run=dry_run))


@click.command("waldur_site_create_homedirs")
@config_option
@offering_option
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
def create_homedirs(config_file: Path, offerings: tuple[str, ...], dry_run: bool) -> None:
    """Create home directories for the offering's users who have none."""
    sys.exit(create_homes(config_file, offerings, dry_run=dry_run))


@click.command("waldur_sync_resource_limits")
@config_option
@offering_option
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
def sync_resource_limits(config_file: Path, offerings: tuple[str, ...], dry_run: bool) -> None:
    """Report the limits found in the backend to Waldur, where they differ.

    As waldur-site-agent limits sync --to waldur does.
    """
    sys.exit(sync_limits(config_file, offerings, to="waldur", dry_run=dry_run))


@click.command("waldur_site_diagnostics", context_settings=colour_settings())
@config_option
@offering_option
@click.option(
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or for machines.",
)
@click.option(
    "--broker-login",
    is_flag=True,
    help="Also register for events at Waldur, as event_process does, and log in at the broker.",
)
def diagnostics(
    config_file: Path, offerings: tuple[str, ...], output: str, broker_login: bool
) -> None:
    """Check machine, configuration, Waldur, rights, components, backend and message broker.

    A verdict per line, with a remedy where one is needed. Exit codes: 0 nothing failed,
    1 something did, 2 usage or configuration error.
    """
    sys.exit(diagnose_and_print(config_file, offerings, output, login=broker_login))
