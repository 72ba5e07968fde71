"""Gives people their usernames: ask the backend, decide, tell Waldur.

What fails for one person stays with that person.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeAlias
from uuid import UUID

from waldur_site_agent.backends import AccountLinkingRequired, AdditionalValidationRequired
from waldur_site_agent.cycles.username_calls import carry_out, imagine
from waldur_site_agent.cycles.username_report import (
    UsernameChange,
    UsernameResult,
    UsernamesReport,
)
from waldur_site_agent.model.errors import PermanentError, SiteAgentError
from waldur_site_agent.model.people import OfferingUserState as State
from waldur_site_agent.planning import usernames as planning
from waldur_site_agent.planning.access import folded
from waldur_site_agent.waldur.concurrency import concurrently

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from structlog.typing import FilteringBoundLogger

    from waldur_site_agent.backends import UsernameBackend
    from waldur_site_agent.cycles.given_usernames import GivenUsernames
    from waldur_site_agent.model.offerings import WaldurOffering
    from waldur_site_agent.model.people import OfferingUser
    from waldur_site_agent.planning.writes import Write
    from waldur_site_agent.waldur import UnreadableRow, Waldur

__all__ = [
    "UsernameChange",
    "UsernameResult",
    "UsernamesReport",
    "Workplace",
    "sync_offering_users",
    "sync_usernames",
]

Question: TypeAlias = "tuple[OfferingUser, planning.Answer]"

_BATCH = 32
"""People asked about before Waldur is told: little is lost when the agent dies in between."""


class Workplace(Protocol):
    """The part of a site that usernames need; a ``Site`` is one."""

    @property
    def waldur(self) -> Waldur:
        """Where the people are."""

    @property
    def log(self) -> FilteringBoundLogger:
        """Bound to the offering."""

    @property
    def given(self) -> GivenUsernames:
        """The names that this process has given."""

    @property
    def record_write(self) -> Callable[[Write, SiteAgentError | None], None]:
        """Writes what changed in Waldur into the journal, where the site keeps one."""

    @property
    def stopping(self) -> Callable[[], bool]:
        """Whether the agent was asked to stop."""


def sync_offering_users(
    site: Workplace, offering_uuid: UUID, backend: UsernameBackend, *, dry_run: bool = False
) -> UsernamesReport:
    """Read the offering and its users, and give names to those who need one.

    Raises:
        TemporaryError: Waldur cannot be asked, or its list of users is not complete.
        PermanentError: Waldur does not let the agent see them.
    """
    offering = site.waldur.offering(offering_uuid)
    users = site.waldur.offering_users(offering_uuid).require_complete("offering users")
    report = sync_usernames(site, offering, users, backend, dry_run=dry_run)
    _report_duplicates(site.log, report.duplicates)
    return report


def sync_usernames(
    site: Workplace,
    offering: WaldurOffering,
    users: Sequence[OfferingUser],
    username_backend: UsernameBackend,
    *,
    dry_run: bool = False,
    who: Callable[[OfferingUser], bool] = lambda _: True,
    unreadable: Sequence[UnreadableRow] = (),
) -> UsernamesReport:
    """Give names to those who need one, where the site is to make the names.

    What goes wrong for one person is in the report and in the log, and stops nobody else.

    Args:
        site: where to work.
        offering: the offering as Waldur has it, with its policy.
        users: all users of the offering; a part of them would hide names that are taken.
        username_backend: who finds and makes the names.
        dry_run: change nothing in Waldur nor at the site.
        who: whom to ask the username backend about, among those who need a name.
        unreadable: users who were not understood; their names are taken, and where not even the
            name is known, nobody gets one.
    """
    policy = offering.plugin_options.get(planning.POLICY)
    by_us = policy == planning.BY_PROVIDER
    work = _Round(site, username_backend, users, who, dry_run=dry_run)
    changes = work.run(unreadable) if by_us else []
    changed = {**work.read, **{change.user.uuid: change.user for change in changes}}
    users = tuple(changed.get(user.uuid, user) for user in users)
    return UsernamesReport(
        users=users,
        changes=tuple(changes),
        duplicates=planning.duplicates_of(users),
        policy_of_others="" if by_us else str(policy or "none"),
    )


class _Round:
    """One pass over the people without names; remembers what it gave in its course."""

    def __init__(
        self,
        site: Workplace,
        backend: UsernameBackend,
        users: Sequence[OfferingUser],
        who: Callable[[OfferingUser], bool],
        *,
        dry_run: bool,
    ) -> None:
        self._site = site
        self._backend = backend
        self._dry_run = dry_run
        self._waiting = [
            user
            for user in planning.in_order_of_arrival(users)
            if planning.needs_username(user) and who(user)
        ]
        self._holders = dict(planning.holders_of(site.given.added_to(users)))
        self.read: dict[UUID, OfferingUser] = {}
        """Offering users as they are when they are read by themselves."""

    def run(self, unreadable: Sequence[UnreadableRow]) -> list[UsernameChange]:
        for row in unreadable:
            name = row.text("username")
            if name is None:
                return self._all_left(f"which names are taken is not known: {row}")
            if taken := folded(name):
                holder = frozenset({row.uuid("user_uuid") or UUID(int=0)})
                self._holders[taken] = self._holders.get(taken, holder) | holder
        if not self._waiting or not self._backend_heard():
            return self._all_left("the username backend is not ready; the log says why")
        changes: list[UsernameChange] = []
        answers = self._answers()
        while batch := list(islice(answers, _BATCH)):
            changes += self._tell(batch)
        return changes

    def _backend_heard(self) -> bool:
        try:
            self._backend.names_held(self._holders)
        except SiteAgentError as error:
            self._site.log.warning("usernames cannot be given now", reason=str(error))
            return False
        except Exception:
            self._site.log.exception("username backend failed because of a defect")
            return False
        return True

    def _all_left(self, reason: str) -> list[UsernameChange]:
        return [
            UsernameChange(user=user, what="username", result=UsernameResult.LEFT, reason=reason)
            for user in self._waiting
        ]

    def _answers(self) -> Iterator[Question]:
        for user in self._waiting:
            if self._site.stopping():
                return
            answer = self._ask(user)
            if isinstance(answer, planning.Named):
                name = answer.username.lower()
                self._holders[name] = self._holders.get(name, frozenset()) | {user.user_uuid}
            yield user, answer

    def _ask(self, user: OfferingUser) -> planning.Answer:
        try:
            return self._name(user)
        except AccountLinkingRequired as error:
            return planning.ActionRequired(State.PENDING_ACCOUNT_LINKING, error.message, error.url)
        except AdditionalValidationRequired as error:
            return planning.ActionRequired(
                State.PENDING_ADDITIONAL_VALIDATION, error.message, error.url
            )
        except PermanentError as error:
            return planning.Refused(str(error))
        except SiteAgentError as error:
            return planning.Unknown(str(error))
        except Exception as error:  # a defect of a plugin ends one person's turn, not the cycle
            self._site.log.exception(
                "username backend failed because of a defect", user=user.user_username
            )
            return planning.Unknown(f"a defect of the username backend: {type(error).__name__}")

    def _name(self, user: OfferingUser) -> planning.Answer:
        if name := self._backend.get_username(user):
            return planning.grant(user, name, self._holders, found=True)
        if self._dry_run and self._backend.generating_has_effects:
            return planning.ToBeNamed()
        name = self._backend.generate_username(user)
        if name is None:
            return planning.Unnamed()
        return planning.grant(user, name, self._holders, found=False)

    def _tell(self, batch: list[Question]) -> list[UsernameChange]:
        if self._dry_run:
            return [change for user, answer in batch if (change := imagine(user, answer))]
        attempts = concurrently(
            lambda question: carry_out(
                self._site.waldur, self._site.log, *question, self._site.record_write
            ),
            self._confirmed(batch),
        )
        changes = [attempt.value for attempt in attempts if attempt.value is not None]
        self._site.given.note(change.user for change in changes)
        return changes

    def _confirmed(self, batch: list[Question]) -> list[Question]:
        """The people who are to be changed, as they are by themselves, with what still holds.

        A list may be a moment old: a name may have been given that it does not show. What this
        process gave is remembered; for what an agent before it gave, all who wait are read once.
        """
        changing = {user.uuid: user for user, answer in batch if planning.plan_calls(user, answer)}
        if not changing:
            return batch
        names = any(isinstance(answer, planning.Named) for _, answer in batch)
        if names and not self._site.given.is_settled:
            changing |= {user.uuid: user for user in self._waiting}
            self._site.given.is_settled = True
        unread = changing.keys() - self.read.keys()
        errors = {}
        for attempt in concurrently(self._site.waldur.offering_user, sorted(unread)):
            if attempt.value is None:
                errors[attempt.item] = f"the account could not be read by itself: {attempt.error}"
                continue
            user = self.read[attempt.item] = attempt.value
            if name := user.username.lower():
                self._holders[name] = self._holders.get(name, frozenset()) | {user.user_uuid}
        return [
            (user, planning.Unknown(errors[user.uuid]))
            if user.uuid in errors
            else planning.as_it_is(user, self.read.get(user.uuid, user), answer, self._holders)
            for user, answer in batch
        ]


def _report_duplicates(
    log: FilteringBoundLogger, duplicates: Mapping[str, tuple[OfferingUser, ...]]
) -> None:
    for name, people in duplicates.items():
        log.warning(
            "several people have the same username in Waldur",
            username=name,
            users=[user.user_username or str(user.user_uuid) for user in people],
            remedy="give each of them a username of their own in Waldur",
        )
