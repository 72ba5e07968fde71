"""Parts of membership_sync as commands of their own: home directories, and limits for Waldur."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from waldur_site_agent.cli.starting import DONE, FAILED, load_or_exit
from waldur_site_agent.cycles.homes import create_missing_homes
from waldur_site_agent.cycles.resource_limits import sync_resource_limits
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.modes import MEMBERSHIP_SYNC
from waldur_site_agent.service.sessions import Situation, open_site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from waldur_site_agent.cycles.site import Site

    Work = Callable[..., tuple[list[str], list[str]]]


def create_homes(path: Path, wanted: Sequence[str], *, dry_run: bool) -> int:
    """Make missing home directories; return the exit code."""
    return _for_every_offering(path, wanted, create_missing_homes, dry_run=dry_run)


def sync_limits(path: Path, wanted: Sequence[str], *, dry_run: bool) -> int:
    """Tell Waldur the limits found in the backend; return the exit code."""
    return _for_every_offering(path, wanted, sync_resource_limits, dry_run=dry_run)


def _for_every_offering(path: Path, wanted: Sequence[str], work: Work, *, dry_run: bool) -> int:
    mode = MEMBERSHIP_SYNC
    start = load_or_exit(path, wanted=wanted, jobs=[mode.job], quiet=True)
    situation = Situation(
        configuration=start.configuration, source=start.source, registry=start.registry
    )
    code = DONE
    for offering in start.offerings:
        click.echo(f"{offering.name}:")
        if not offering.backend_for(mode.job):
            click.echo(f"  no {mode.job.value}; left alone")
            continue
        try:
            with open_site(situation, offering, mode, lambda: False) as site:
                lines, trouble = _carried_out(site, work, dry_run=dry_run)
        except SiteAgentError as error:
            lines, trouble = [], [str(error)]
        for line in lines or ["nothing to do"] * (not trouble):
            click.echo(f"  {line}")
        for line in trouble:
            click.echo(f"  ! {line}")
            code = FAILED
    return start.exit_code(code)


def _carried_out(site: Site, work: Work, *, dry_run: bool) -> tuple[list[str], list[str]]:
    lines, trouble = work(site, dry_run=dry_run)
    sign = "would be done: " if dry_run else ""
    return [f"{sign}{line}" for line in lines], trouble
