"""What every cycle works with: one offering, its Waldur, its backend, and the time."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from waldur_site_agent.backends import BackendSettings
from waldur_site_agent.backends.usernames import NoUsernames
from waldur_site_agent.cycles.conditions import Conditions
from waldur_site_agent.cycles.given_usernames import GivenUsernames
from waldur_site_agent.cycles.watching import Unwatched

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo
    from uuid import UUID

    from structlog.typing import FilteringBoundLogger

    from waldur_site_agent.backends import Backend, Outcome, UsernameBackend
    from waldur_site_agent.config import Offering
    from waldur_site_agent.cycles.watching import Watch
    from waldur_site_agent.model.errors import SiteAgentError
    from waldur_site_agent.planning.guard import Thresholds
    from waldur_site_agent.planning.plan import Step
    from waldur_site_agent.planning.writes import Write
    from waldur_site_agent.waldur import Waldur


class UnreportedUsage(enum.Enum):
    """What becomes of a termination whose last usage another token could report."""

    WAIT = "wait"
    """It stays executing, but not for the rest of past months, which is for staff alone."""
    WAIT_FOR_PAST_MONTHS = "wait_for_past_months"
    """It stays executing for that, too."""
    COMPLETE = "complete"
    """It is completed; the usage is never billed."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _never() -> bool:
    return False


def _forget(_step: Step, _outcome: Outcome) -> None:
    return


def _forget_write(_write: Write, _error: SiteAgentError | None) -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Sibling:
    """Another offering of the file, at the same or at another Waldur.

    It reports usage of the same machine, and has some of the same components.
    """

    offering: Offering
    waldur: Waldur


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One offering at work; the same for all its cycles in one process."""

    offering: Offering
    waldur: Waldur
    backend: Backend
    thresholds: Thresholds
    log: FilteringBoundLogger
    now: Callable[[], datetime] = _utc_now
    sleep: Callable[[float], None] = time.sleep
    stopping: Callable[[], bool] = _never
    """Whether the agent was asked to stop: the object in hand is finished, no new one begun."""
    record: Callable[[Step, Outcome], None] = _forget
    """Writes an applied action into the journal, where the site keeps one."""
    record_write: Callable[[Write, SiteAgentError | None], None] = _forget_write
    """The same for a change in Waldur, and for what Waldur said instead of making it."""
    watch: Watch = field(default_factory=Unwatched)
    """Told of everything that comes back, for health and metrics."""
    usernames: UsernameBackend = field(default_factory=lambda: NoUsernames(BackendSettings()))
    """Gives people their usernames; by default it gives none."""
    conditions: Conditions = field(default_factory=Conditions)
    """What lasts for many cycles and is logged when it changes; lives as long as the process."""
    memory: dict[str, int] = field(default_factory=dict)
    """What may be forgotten at any time without harm, and is at a restart."""
    given: GivenUsernames = field(default_factory=GivenUsernames)
    """The usernames that this process gave; lists may not show them yet."""
    named: set[UUID] = field(default_factory=set)
    """The resources that this process gave a name; lists may not show it yet."""
    server_calls: dict[str, int] = field(default_factory=dict)
    """Which optional calls the server has; shared by all work at that server."""
    siblings: tuple[Sibling, ...] = ()
    """With whom accounts may be shared by mistake, so that both would be billed."""
    zone: tzinfo = UTC
    """Where billing months begin and end."""
    unreported_usage: UnreportedUsage = UnreportedUsage.WAIT
    """What becomes of a termination whose last usage this token may not report."""
    remove_unknown_users: bool = False
    """Whether users of an account that Waldur does not know are removed, not only reported."""
