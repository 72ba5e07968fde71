"""Parts of membership_sync as commands of their own: home directories, and limits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import click

from waldur_site_agent.cli.plan_text import on_one_line
from waldur_site_agent.cli.running import open_journal
from waldur_site_agent.cli.starting import DONE, FAILED, load_or_exit
from waldur_site_agent.cycles.homes import create_missing_homes
from waldur_site_agent.cycles.report import CommandOutcome
from waldur_site_agent.cycles.resource_limits import sync_resource_limits
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.modes import MEMBERSHIP_SYNC
from waldur_site_agent.service.sessions import Situation, open_site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Work = Callable[..., CommandOutcome]


def create_homes(path: Path, wanted: Sequence[str], *, dry_run: bool) -> int:
    """Make missing home directories; return the exit code."""
    return _for_every_offering(path, wanted, create_missing_homes, dry_run=dry_run)


def sync_limits(
    path: Path, wanted: Sequence[str], *, to: Literal["waldur", "backend"], dry_run: bool
) -> int:
    """Bring the limits of one side to the other; return the exit code."""
    work = partial(sync_resource_limits, follows="backend" if to == "waldur" else "waldur")
    return _for_every_offering(path, wanted, work, dry_run=dry_run)


def _for_every_offering(path: Path, wanted: Sequence[str], work: Work, *, dry_run: bool) -> int:
    mode = MEMBERSHIP_SYNC
    start = load_or_exit(path, wanted=wanted, jobs=[mode.job], quiet=True)
    situation = Situation(
        configuration=start.configuration,
        source=start.source,
        registry=start.registry,
        journal=open_journal(start, dry_run=dry_run),
    )
    code = DONE
    for offering in start.offerings:
        click.echo(f"{offering.name}:")
        if not offering.backend_for(mode.job):
            click.echo(f"  no {mode.job.value}; left alone")
            continue
        try:
            with open_site(situation, offering, mode, lambda: False) as site:
                outcome = work(site, dry_run=dry_run)
        except SiteAgentError as error:
            outcome = CommandOutcome(trouble=(str(error),))
        _print(outcome, dry_run=dry_run)
        code = FAILED if outcome.trouble else code
    return start.exit_code(code)


def _print(outcome: CommandOutcome, *, dry_run: bool) -> None:
    sign = "would be done: " if dry_run else ""
    for line in outcome.done or ["nothing to do"] * (not outcome.trouble):
        click.echo(on_one_line(f"  {sign if outcome.done else ''}{line}"))
    for line in outcome.remarks:
        click.echo(on_one_line(f"  {line}"))
    for line in outcome.trouble:
        click.echo(on_one_line(f"  ! {line}"))
