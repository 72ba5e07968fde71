"""The command line: ``waldur-site-agent`` with its subcommands, and ``waldur_site_agent``."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from waldur_site_agent import __version__
from waldur_site_agent.cli.allow import allow_command
from waldur_site_agent.cli.commands import (
    components_load,
    diagnose,
    directories_check,
    directories_repair,
    homedirs_create,
    import_list,
    limits_sync,
    users_sync,
)
from waldur_site_agent.cli.explain import explain_command
from waldur_site_agent.cli.install import health, init_command, install_services
from waldur_site_agent.cli.migrate import migrate_command
from waldur_site_agent.cli.output import say
from waldur_site_agent.cli.plugins import plugins_command
from waldur_site_agent.cli.run import (
    RunOptions,
    check_configuration,
    mode_option,
    print_configuration,
    recreate_option,
    removals_option,
    run,
)
from waldur_site_agent.cli.start import (
    colour_settings,
    config_option,
    give_up,
    interruptible,
    offering_option,
    output_option,
    reference_command,
    schema_command,
    version_1_command,
    version_option,
)
from waldur_site_agent.cli.status import journal_command, status_command
from waldur_site_agent.cli.usage import usage_group

PROGRAM = "waldur-site-agent"
_VARIABLE = "_WALDUR_SITE_AGENT_COMPLETE"


@click.group(context_settings={"help_option_names": ["-h", "--help"]} | colour_settings())
@version_option
def main() -> None:
    """Provisions Waldur Marketplace orders on an HPC site and keeps them in sync.

    Start with `config check`, `diagnose` and `plan`, which change nothing; then `run`.
    """


@main.command("run")
@mode_option
@config_option
@click.option("--once", is_flag=True, help="Run one cycle, then exit.")
@offering_option
@removals_option
@recreate_option
def run_command(
    mode: str,
    config_file: Path,
    once: bool,
    offerings: tuple[str, ...],
    allow_removals: bool,
    recreate: bool,
) -> None:
    """Run the agent, as a service or for one cycle."""
    options = RunOptions(
        mode=mode,
        config_file=config_file,
        once=once,
        offerings=offerings,
        allow_removals=allow_removals,
        recreate=recreate,
    )
    sys.exit(run(options))


@main.command("plan")
@mode_option
@config_option
@offering_option
@removals_option
@recreate_option
@output_option()
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit 3 if the plan is refused, 1 if it contains errors.",
)
def plan_command(
    mode: str,
    config_file: Path,
    offerings: tuple[str, ...],
    allow_removals: bool,
    recreate: bool,
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
        recreate=recreate,
        exit_code=exit_code,
        output=output,
    )
    sys.exit(run(options))


@click.command("waldur_site_agent", context_settings={"help_option_names": ["-h", "--help"]})
@mode_option
@config_option
@click.option("--once", is_flag=True, help="Run one cycle, then exit.")
@click.option(
    "--check-config",
    is_flag=True,
    help="Print the resolved configuration, secrets masked, and exit.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the plan of one cycle; change nothing in Waldur or the backend.",
)
@offering_option
@removals_option
@recreate_option
@version_option
def agent(
    mode: str,
    config_file: Path,
    once: bool,
    check_config: bool,
    dry_run: bool,
    offerings: tuple[str, ...],
    allow_removals: bool,
    recreate: bool,
) -> None:
    """Provision Waldur Marketplace orders on this site and keep them in sync.

    Without --once or --dry-run the agent runs until it receives SIGTERM or SIGINT; SIGHUP reloads
    the configuration.

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
        recreate=recreate,
    )
    sys.exit(run(options))


@main.group("config")
def config_group() -> None:
    """Check and describe the configuration."""


@config_group.command("check")
@config_option
@click.option(
    "--show",
    is_flag=True,
    help="Print the file with all defaults filled in and secrets masked, instead of a summary.",
)
def check_command(config_file: Path, *, show: bool) -> None:
    """Check the file and print which backend does what for each offering.

    Neither Waldur nor a backend is contacted. Exit codes: 0 valid, 2 errors, which are all printed.
    """
    if show:
        print_configuration(config_file)
    else:
        check_configuration(config_file)


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print a completion script for your shell.

    For bash: waldur-site-agent completion bash > /etc/bash_completion.d/waldur-site-agent
    """
    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - click knows all three
        raise click.UsageError(f"click does not know the shell {shell}")
    say(kind(context.find_root().command, {}, PROGRAM, _VARIABLE).source())


@main.group("components")
def components_group() -> None:
    """Components of the offering in Waldur."""


@main.group("users")
def users_group() -> None:
    """Users of the offering."""


@main.group("homedirs")
def homedirs_group() -> None:
    """Home directories of the offering's users."""


@main.group("directories")
def directories_group() -> None:
    """Home and project directories, with their quotas."""


@main.group("limits")
def limits_group() -> None:
    """Limits of the offering's resources."""


@main.group("import")
def import_group() -> None:
    """Backend accounts that Waldur does not know."""


for group, command in (
    (config_group, schema_command),
    (config_group, reference_command),
    (config_group, version_1_command),
    (components_group, components_load),
    (users_group, users_sync),
    (homedirs_group, homedirs_create),
    (directories_group, directories_check),
    (directories_group, directories_repair),
    (limits_group, limits_sync),
    (import_group, import_list),
    (main, usage_group),
    (main, diagnose),
    (main, explain_command),
    (main, allow_command),
    (main, status_command),
    (main, journal_command),
    (main, health),
    (main, init_command),
    (main, install_services),
    (main, completion_command),
    (main, migrate_command),
    (main, plugins_command),
):
    group.add_command(command)


def _sandbox_command(name: str, short_help: str) -> click.Command:
    """A command of the sandbox's distribution, loaded on use if it is installed."""

    @click.command(
        name,
        short_help=short_help,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
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


main.add_command(_sandbox_command("demo", "Show orders being provisioned on a simulated cluster."))
main.add_command(_sandbox_command("sandbox", "Run a small Waldur to try a configuration with."))
