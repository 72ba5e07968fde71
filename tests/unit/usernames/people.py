"""A Waldur with people in it, and a username backend that says what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from structlog.testing import CapturingLogger
from structlog.typing import FilteringBoundLogger

from waldur_site_agent.backends import BackendSettings, UsernameBackend
from waldur_site_agent.cycles.site import NoJournal
from waldur_site_agent.cycles.usernames import GivenUsernames, UsernamesReport, sync_offering_users
from waldur_site_agent.model.marketplace import OfferingUser
from waldur_site_agent.waldur import Waldur
from waldur_site_agent_sandbox import Sandbox
from waldur_site_agent_sandbox.records import OfferingUser as Record
from waldur_site_agent_sandbox.server import ADDRESS

Word = str | Exception | None


class Scripted(UsernameBackend):
    """Answers what it was told for a person, by their name in Waldur."""

    generating_has_effects = True

    def __init__(self) -> None:
        super().__init__(BackendSettings())
        self.found: dict[str, Word] = {}
        self.made: dict[str, Word] = {}
        self.generated_for: list[str] = []
        self.heard: list[Mapping[str, frozenset[UUID]]] = []
        self.deaf: Exception | None = None

    def names_held(self, holders: Mapping[str, frozenset[UUID]]) -> None:
        if self.deaf:
            raise self.deaf
        self.heard.append(dict(holders))

    def get_username(self, offering_user: OfferingUser) -> str | None:
        return self._say(self.found.get(offering_user.user_username))

    def generate_username(self, offering_user: OfferingUser) -> str | None:
        self.generated_for.append(offering_user.user_username)
        return self._say(self.made.get(offering_user.user_username))

    def _say(self, word: Word) -> str | None:
        if isinstance(word, Exception):
            raise word
        return word


@dataclass
class Place:
    """Both sides, and what tests ask of them."""

    sandbox: Sandbox
    waldur: Waldur
    log: FilteringBoundLogger
    logged: CapturingLogger
    stopping: Callable[[], bool] = bool
    backend: UsernameBackend = field(default_factory=Scripted)
    journal: NoJournal = field(default_factory=NoJournal)
    given: GivenUsernames = field(default_factory=GivenUsernames)

    @property
    def script(self) -> Scripted:
        assert isinstance(self.backend, Scripted)
        return self.backend

    def person(self, name: str, state: str = "Requested", username: str = "", **more: Any) -> None:
        """Put a person with an account into Waldur."""
        side = self.sandbox.customer
        account = side.set_account(side.add_user(name), username, state)
        side.edit(account, **more)

    def account(self, name: str) -> Record:
        """The person's account as Waldur has it now."""
        world = self.sandbox.customer.world
        (found,) = (
            row for row in world.offering_users.values() if world.users[row.user].username == name
        )
        return found

    def shown(self, name: str) -> tuple[str, str]:
        """State and username in Waldur."""
        account = self.account(name)
        return account.state, account.username or ""

    def cycle(self, *, dry_run: bool = False) -> UsernamesReport:
        """One pass; only its requests are remembered."""
        self.sandbox.requests.clear()
        uuid = UUID(self.sandbox.offering.uuid)
        return sync_offering_users(self, uuid, self.backend, dry_run=dry_run)

    def writes(self) -> list[str]:
        """The writing calls of the last pass, in short."""
        return [
            each.operation.removeprefix("marketplace_offering_users_")
            for each in self.sandbox.requests.writes()
        ]

    def lines(self, level: str) -> list[dict[str, Any]]:
        """What was logged at a level."""
        return [call.kwargs for call in self.logged.calls if call.method_name == level]


@contextmanager
def a_place(version: str) -> Iterator[Place]:
    """A sandbox of a version, and a client that does not wait between its attempts."""
    sandbox = Sandbox(version)
    logged = CapturingLogger()
    log = structlog.wrap_logger(
        logged,
        processors=[lambda _logger, _name, event: ((), dict(event))],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    transport = sandbox.transport()
    with Waldur(ADDRESS, sandbox.token, transport=transport, sleep=lambda _seconds: None) as waldur:
        yield Place(sandbox, waldur, log, logged)
