"""The agent itself: one cycle, a dry run, or the service."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from waldur_site_agent.cli.plan_text import orders_text
from waldur_site_agent.cli.starting import (
    DONE,
    FAILED,
    REFUSED,
    UsageError,
    give_up,
    load,
    load_or_exit,
)
from waldur_site_agent.config import resolved_yaml
from waldur_site_agent.service.agent import Crew, run_once
from waldur_site_agent.service.modes import AVAILABLE, MODE_NAMES
from waldur_site_agent.service.sessions import Situation
from waldur_site_agent.service.signals import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from waldur_site_agent.cli.starting import Start
    from waldur_site_agent.config import Offering
    from waldur_site_agent.cycles.order_report import OrdersReport
    from waldur_site_agent.service.modes import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the command line says about a run."""

    mode: str
    config_file: Path
    once: bool = False
    dry_run: bool = False
    offerings: tuple[str, ...] = ()
    allow_removals: bool = False


def mode_option(command: Callable[..., object]) -> Callable[..., object]:
    """The option that says which job to do."""
    return click.option(
        "-m",
        "--mode",
        type=click.Choice(MODE_NAMES),
        default="order_process",
        show_default=True,
        help="What to do: carry out orders, report usage, sync members, react to events, or all.",
    )(command)


def offering_option(command: Callable[..., object]) -> Callable[..., object]:
    """The option that restricts a command to some offerings."""
    return click.option(
        "--offering",
        "offerings",
        multiple=True,
        metavar="NAME_OR_UUID",
        help="Only this offering; may be given several times.",
    )(command)


def removals_option(command: Callable[..., object]) -> Callable[..., object]:
    """The option that overrules the guard."""
    return click.option(
        "--allow-removals",
        is_flag=True,
        help="Carry out removals that the guard would refuse as too many.",
    )(command)


def print_configuration(path: Path) -> None:
    """Print the resolved configuration, secrets masked; exit with 2 if it cannot be used."""
    start = load_or_exit(path, jobs=[mode.job for mode in AVAILABLE.values()], quiet=True)
    click.echo(resolved_yaml(start.configuration), nl=False)


def run(options: RunOptions) -> int:
    """Run the agent as the command line says; the exit code is returned."""
    mode = _mode(options.mode)
    start = load_or_exit(
        options.config_file, wanted=options.offerings, jobs=[mode.job], quiet=options.dry_run
    )
    try:
        mode.period_seconds()
        served = _served(start, mode)
    except ValueError as error:
        give_up(str(error))
    if options.dry_run or options.once:
        reports = run_once(_situation(start, options), served, mode, dry_run=options.dry_run)
        return _conclude(reports, dry_run=options.dry_run)
    return serve(lambda: _crew(options, mode))


def _mode(name: str) -> Mode:
    mode = AVAILABLE.get(name)
    if mode is None:
        available = ", ".join(AVAILABLE)
        give_up(f"mode {name} is not part of this version yet; available: {available}")
    return mode


def _served(start: Start, mode: Mode) -> list[Offering]:
    served = [offering for offering in start.offerings if mode.serves(offering)]
    if not served:
        raise UsageError(
            f"no offering of {start.source.path} takes part in mode {mode.name}: "
            f"set {mode.job.value}, and neither stomp_enabled nor mqtt_enabled"
        )
    return served


def _situation(start: Start, options: RunOptions) -> Situation:
    return Situation(
        configuration=start.configuration,
        source=start.source,
        registry=start.registry,
        removals_allowed=options.allow_removals,
    )


def _crew(options: RunOptions, mode: Mode) -> Crew:
    """Read the configuration (again) and put a worker on every offering."""
    start = load(options.config_file, wanted=options.offerings, jobs=[mode.job])
    work = [(offering, mode) for offering in _served(start, mode)]
    return Crew(_situation(start, options), work)


def _conclude(reports: Sequence[OrdersReport], *, dry_run: bool) -> int:
    if dry_run:
        for report in reports:
            if len(reports) > 1:
                click.echo(f"== {report.offering} ==")
            click.echo(orders_text(report))
    sys.stdout.flush()
    if any(report.refusal for report in reports):
        return REFUSED
    return FAILED if any(report.failed for report in reports) else DONE
