"""``users sync``: people without a username get one, and their accounts become usable."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click
import structlog

from waldur_site_agent.backends.username_registry import UsernameRegistry
from waldur_site_agent.cli.running import open_journal
from waldur_site_agent.cli.starting import DONE, FAILED, load_or_exit
from waldur_site_agent.cycles.given_usernames import GivenUsernames
from waldur_site_agent.cycles.usernames import UsernameResult, sync_offering_users
from waldur_site_agent.model.errors import SiteAgentError
from waldur_site_agent.service.sessions import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from waldur_site_agent.config import Offering
    from waldur_site_agent.cycles.usernames import UsernameChange, UsernamesReport
    from waldur_site_agent.planning.writes import Write
    from waldur_site_agent.service.journal import Journal
    from waldur_site_agent.waldur import Waldur

_COLUMN = 14


@dataclass(frozen=True, slots=True)
class _Desk:
    """What usernames need of a site, without a backend."""

    waldur: Waldur
    log: FilteringBoundLogger
    record_write: Callable[[Write, SiteAgentError | None], None]
    stopping: Callable[[], bool] = bool
    given: GivenUsernames = field(default_factory=GivenUsernames)


def sync_users(path: Path, wanted: Sequence[str], *, dry_run: bool) -> int:
    """Do it for every offering and print a line per person; return the exit code."""
    start = load_or_exit(path, wanted=wanted, usernames=True, quiet=True)
    registry = UsernameRegistry()
    journal = open_journal(start, dry_run=dry_run)
    code = DONE
    for offering in start.offerings:
        click.echo(f"{offering.name}:")
        try:
            report = _sync(offering, registry, journal, dry_run=dry_run)
        except SiteAgentError as error:
            click.echo(f"  ! {error}")
            code = FAILED
            continue
        for line in _lines(report):
            click.echo(f"  {line}")
        code = FAILED if report.failed else code
    return start.exit_code(code)


def _sync(
    offering: Offering, registry: UsernameRegistry, journal: Journal, *, dry_run: bool
) -> UsernamesReport:
    record = journal.recorder_of_writes(offering.name, "users_sync")
    log = structlog.get_logger().bind(offering=offering.name)
    with connect(offering, "users_sync") as waldur, closing(registry.open(offering)) as backend:
        return sync_offering_users(
            _Desk(waldur, log, record), offering.waldur_offering_uuid, backend, dry_run=dry_run
        )


def _lines(report: UsernamesReport) -> Iterator[str]:
    if report.policy_of_others:
        yield f'Waldur makes the usernames here (policy "{report.policy_of_others}")'
    elif not report.changes:
        yield "No changes."
    for change in report.changes:
        yield _line(change)
    for name, people in report.duplicates.items():
        who = ", ".join(user.user_username or str(user.user_uuid) for user in people)
        yield f"! {name:<{_COLUMN}} is the username of several people in Waldur: {who}"


def _line(change: UsernameChange) -> str:
    person = change.user.user_username or str(change.user.user_uuid)
    sign = "~" if change.result in (UsernameResult.DONE, UsernameResult.PLANNED) else "!"
    return f"{sign} {person:<{_COLUMN}} {change.text}"
