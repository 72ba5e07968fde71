"""Assigns usernames to offering users: ask the username backend, decide, update Waldur.

A failure for one user does not affect the others.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol, TypeAlias
from uuid import UUID

from structlog.typing import FilteringBoundLogger

from waldur_site_agent.backends import (
    AccountLinkingRequired,
    AdditionalValidationRequired,
    UsernameBackend,
)
from waldur_site_agent.model.errors import PermanentError, SiteAgentError
from waldur_site_agent.model.marketplace import OfferingUser, WaldurOffering
from waldur_site_agent.model.marketplace import OfferingUserState as State
from waldur_site_agent.planning import usernames as planning
from waldur_site_agent.planning.membership import folded
from waldur_site_agent.planning.plan import Write, user_write
from waldur_site_agent.planning.usernames import (
    ActionRequired,
    Answer,
    Call,
    Named,
    Refused,
    ToBeNamed,
    Unknown,
    Unnamed,
    plan_calls,
)
from waldur_site_agent.waldur import TransitionRefusedError, UnreadableRow, Waldur
from waldur_site_agent.waldur.concurrency import concurrently


class UsernameResult(enum.Enum):
    """The result of a cycle for one offering user."""

    PLANNED = "planned"
    """Dry run: it would be changed."""
    DONE = "done"
    """Waldur was updated."""
    REFUSED = "refused"
    """No username until somebody changes something; retried in every cycle."""
    LEFT = "left"
    """An error occurred on the way; the next cycle continues from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsernameChange:
    """One offering user who was changed, or should have been."""

    user: OfferingUser
    """The user afterwards."""
    what: str
    """The new username, or what the user is waiting for, as text."""
    result: UsernameResult
    reason: str = ""
    """Why it was refused or left, or the comment shown to the user."""
    write: Write | None = None
    """The change in Waldur with old and new values; ``None`` if there is none."""

    @property
    def text(self) -> str:
        """Old and new values with the reason, as text."""
        if self.write is None:
            return f"{self.what}  {self.reason}".rstrip()
        if any(change.field == "username" for change in self.write.changes):
            return f"{self.write}  {self.reason}".rstrip()
        return f"{self.what}  {self.reason}".rstrip() + f"  ({self.write})"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsernamesReport:
    """The outcome of one pass over the usernames of an offering."""

    users: tuple[OfferingUser, ...]
    """All offering users in their original order, as they are afterwards.

    In a dry run: as they would be, as far as known.
    """
    changes: tuple[UsernameChange, ...] = ()
    """The users who were changed or for whom an error occurred."""
    duplicates: Mapping[str, tuple[OfferingUser, ...]] = field(default_factory=dict)
    """Usernames in lower case that several users have in Waldur, with those users."""
    policy_of_others: str = ""
    """The offering's policy, if the site does not make the usernames; nothing is changed then."""

    @property
    def failed(self) -> bool:
        """Whether some user still has no username because of a refusal or an error."""
        return any(
            change.result in (UsernameResult.REFUSED, UsernameResult.LEFT)
            for change in self.changes
        )


class WriteJournal(Protocol):
    """The part of a journal that usernames need."""

    def record_write(self, write: Write, error: SiteAgentError | None) -> None:
        """Record a change in Waldur."""


class UsernameContext(Protocol):
    """The part of a site that usernames need; a ``Site`` is one."""

    @property
    def waldur(self) -> Waldur:
        """The gateway to Waldur."""

    @property
    def log(self) -> FilteringBoundLogger:
        """The log, bound to the offering."""

    @property
    def given(self) -> GivenUsernames:
        """The usernames that this process has assigned."""

    @property
    def journal(self) -> WriteJournal:
        """Where changes in Waldur are recorded."""

    @property
    def stopping(self) -> Callable[[], bool]:
        """Whether the agent was asked to stop."""


def sync_offering_users(
    site: UsernameContext, offering_uuid: UUID, backend: UsernameBackend, *, dry_run: bool
) -> UsernamesReport:
    """Read the offering and its users, and assign usernames to those who need one.

    Raises:
        TemporaryError: Waldur could not be read, or its list of users is incomplete.
        PermanentError: the token may not read them.
    """
    offering = site.waldur.offering(offering_uuid)
    users = site.waldur.offering_users(offering_uuid).require_complete("offering users")
    report = sync_usernames(site, offering, users, backend, dry_run=dry_run)
    _report_duplicates(site.log, report.duplicates)
    return report


def sync_usernames(
    site: UsernameContext,
    offering: WaldurOffering,
    users: Sequence[OfferingUser],
    username_backend: UsernameBackend,
    *,
    dry_run: bool = False,
    who: Callable[[OfferingUser], bool] = lambda _: True,
    unreadable: Sequence[UnreadableRow] = (),
) -> UsernamesReport:
    """Assign usernames to users who need one, if the offering's policy leaves that to the site.

    Errors with one user are reported and logged, and do not affect the others.

    Args:
        site: the offering's context.
        offering: the offering in Waldur, with its policy.
        users: all users of the offering, since a partial list would hide taken names.
        username_backend: finds and generates the usernames.
        dry_run: change nothing in Waldur or at the site.
        who: selects the users to ask the username backend about.
        unreadable: users that could not be decoded; their names count as taken, and if a name is
            missing, nobody gets one.
    """
    policy = offering.plugin_options.get(planning.POLICY)
    by_provider = policy == planning.BY_PROVIDER
    work = _UsernameSync(site, username_backend, users, who, dry_run=dry_run)
    changes = work.run(unreadable) if by_provider else []
    changed = {**work.read, **{change.user.uuid: change.user for change in changes}}
    users = tuple(changed.get(user.uuid, user) for user in users)
    return UsernamesReport(
        users=users,
        changes=tuple(changes),
        duplicates=planning.duplicates_of(users),
        policy_of_others="" if by_provider else str(policy or "none"),
    )


def _report_duplicates(
    log: FilteringBoundLogger, duplicates: Mapping[str, tuple[OfferingUser, ...]]
) -> None:
    for name, people in duplicates.items():
        log.warning(
            "several users have the same username in Waldur",
            username=name,
            users=[user.user_username or str(user.user_uuid) for user in people],
            remedy="give each of them a different username in Waldur",
        )


Question: TypeAlias = "tuple[OfferingUser, planning.Answer]"

_BATCH = 32
"""Users per batch before Waldur is updated, so that little is lost if the agent dies."""


class _UsernameSync:
    """One pass over users without usernames; keeps track of the names that it assigns."""

    def __init__(
        self,
        site: UsernameContext,
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
            for user in planning.in_order_of_arrival(filter(planning.needs_username, users))
            if who(user)
        ]
        given = site.given.added_to(users)
        self._holders = dict(planning.holders_of(given)) if self._waiting else {}
        self.read: dict[UUID, OfferingUser] = {}
        """Offering users that were read individually."""

    def run(self, unreadable: Sequence[UnreadableRow]) -> list[UsernameChange]:
        for row in unreadable:
            name = row.text("username")
            if name is None:
                return self._leave_all(f"cannot tell which usernames are taken: {row}")
            if taken := folded(name):
                holder = frozenset({row.uuid("user_uuid") or UUID(int=0)})
                self._holders[taken] = self._holders.get(taken, holder) | holder
        if not self._waiting or not self._backend_is_ready():
            return self._leave_all("the username backend is not ready; see the log")
        changes: list[UsernameChange] = []
        answers = self._answers()
        while batch := list(islice(answers, _BATCH)):
            changes += self._carry_out_batch(batch)
        return changes

    def _backend_is_ready(self) -> bool:
        try:
            self._backend.names_held(self._holders)
        except SiteAgentError as error:
            self._site.log.warning("usernames cannot be assigned now", reason=str(error))
            return False
        except Exception:
            self._site.log.exception("username backend failed because of a bug")
            return False
        return True

    def _leave_all(self, reason: str) -> list[UsernameChange]:
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
        except Exception as error:  # a bug in a plugin affects one user, not the cycle
            self._site.log.exception(
                "username backend failed because of a bug", user=user.user_username
            )
            return planning.Unknown(f"bug in the username backend: {type(error).__name__}")

    def _name(self, user: OfferingUser) -> planning.Answer:
        if name := self._backend.get_username(user):
            return planning.grant(user, name, self._holders, found=True)
        if self._dry_run and self._backend.generating_has_effects:
            return planning.ToBeNamed()
        name = self._backend.generate_username(user)
        if name is None:
            return planning.Unnamed()
        return planning.grant(user, name, self._holders, found=False)

    def _carry_out_batch(self, batch: list[Question]) -> list[UsernameChange]:
        if self._dry_run:
            return [change for user, answer in batch if (change := preview_change(user, answer))]
        attempts = concurrently(
            lambda question: carry_out(
                self._site.waldur, self._site.log, *question, self._site.journal.record_write
            ),
            self._confirmed(batch),
        )
        changes = [attempt.value for attempt in attempts if attempt.value is not None]
        self._site.given.note(change.user for change in changes)
        return changes

    def _confirmed(self, batch: list[Question]) -> list[Question]:
        """The batch, after reading the users individually who are about to be changed.

        The list may be outdated and lack usernames that were just assigned. Those of this process
        are remembered; to find those of an earlier process, all waiting users are read once.
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
                errors[attempt.item] = f"the offering user could not be read: {attempt.error}"
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


@dataclass(slots=True)
class GivenUsernames:
    """The usernames that a process has assigned at one offering; lists may not show them yet."""

    users: dict[UUID, OfferingUser] = field(default_factory=dict)
    """The offering users with their new usernames, by UUID."""
    is_settled: bool = False
    """Whether waiting users were read once, to find names that an earlier process assigned."""

    def added_to(self, listed: Iterable[OfferingUser]) -> list[OfferingUser]:
        """The listed users, completed by usernames and users that the list does not show yet."""
        shown = {user.uuid: user for user in listed}
        return [
            *(
                user if user.username else replace(user, username=self._name_of(user.uuid))
                for user in shown.values()
            ),
            *(user for uuid, user in self.users.items() if uuid not in shown),
        ]

    def note(self, users: Iterable[OfferingUser]) -> None:
        """Remember the usernames of these users."""
        self.users.update({user.uuid: user for user in users if user.username})

    def _name_of(self, uuid: UUID) -> str:
        return self.users[uuid].username if uuid in self.users else ""


_MAY_BE_SO_ALREADY = (Call.SET_OK, Call.SET_VALIDATION_COMPLETE, Call.BEGIN_CREATING)
"""Rejected by Waldur if it was done before, by somebody else or with a lost response."""


def carry_out(
    waldur: Waldur,
    log: FilteringBoundLogger,
    user: OfferingUser,
    answer: Answer,
    record: Callable[[Write, SiteAgentError | None], None],
) -> UsernameChange | None:
    """Update Waldur with the answer; ``None`` if there was nothing to do. Never raises."""
    log = log.bind(user=user.user_username, offering_user=str(user.uuid))
    current = user
    change: UsernameChange | None
    try:
        for call in plan_calls(user, answer):
            current = _send(waldur, call, current, answer)
    except SiteAgentError as error:
        change = _left(user, current, answer, str(error))
    except Exception as error:  # a bug affects one user, not the cycle
        log.exception("username not set because of a bug")
        change = _left(user, current, answer, f"bug: {type(error).__name__}: {error}")
    else:
        change = _concluded(user, current, answer, UsernameResult.DONE)
    if change is not None:
        _log(log, change)
        if change.write is not None:
            record(change.write, None)
    return change


def preview_change(user: OfferingUser, answer: Answer) -> UsernameChange | None:
    """What :func:`carry_out` would return if everything succeeded."""
    current = user
    for call in plan_calls(user, answer):
        current = _after(call, current, answer)
    return _concluded(user, current, answer, UsernameResult.PLANNED)


def _send(waldur: Waldur, call: Call, user: OfferingUser, answer: Answer) -> OfferingUser:
    """Send one call and return the user afterwards."""
    if call is Call.SET_OK and user.state == State.OK:
        return user
    try:
        match call, answer:
            case Call.SET_USERNAME, Named(username):
                shown = waldur.set_username(user.uuid, username)
                return replace(user, username=shown.username, state=shown.state)
            case Call.SET_PENDING_ACCOUNT_LINKING, ActionRequired(_, comment, url):
                waldur.set_pending_account_linking(user.uuid, comment, url)
            case Call.SET_PENDING_ADDITIONAL_VALIDATION, ActionRequired(_, comment, url):
                waldur.set_pending_additional_validation(user.uuid, comment, url)
            case Call.SET_VALIDATION_COMPLETE, _:
                waldur.set_validation_complete(user.uuid)
            case Call.BEGIN_CREATING, _:
                waldur.begin_creating(user.uuid)
            case Call.SET_ERROR_CREATING, _:
                waldur.set_error_creating(user.uuid)
            case _:
                waldur.set_ok(user.uuid)
    except TransitionRefusedError:
        if call not in _MAY_BE_SO_ALREADY:
            raise
    return _after(call, user, answer)


def _after(call: Call, user: OfferingUser, answer: Answer) -> OfferingUser:
    match call, answer:
        case Call.SET_USERNAME, Named(username):
            return replace(user, username=username)
        case (
            (Call.SET_PENDING_ACCOUNT_LINKING | Call.SET_PENDING_ADDITIONAL_VALIDATION),
            (ActionRequired(state, comment, url)),
        ):
            return replace(
                user,
                state=state,
                service_provider_comment=comment,
                service_provider_comment_url=url,
            )
        case Call.SET_VALIDATION_COMPLETE, _:
            return replace(
                user,
                state=State.OK,
                service_provider_comment="",
                service_provider_comment_url="",
            )
        case Call.BEGIN_CREATING, _:
            return replace(user, state=State.CREATING)
        case Call.SET_ERROR_CREATING, _:
            return replace(user, state=State.ERROR_CREATING)
        case _:
            return replace(user, state=State.OK)


def _concluded(
    before: OfferingUser, after: OfferingUser, answer: Answer, result: UsernameResult
) -> UsernameChange | None:
    reason = ""
    match answer:
        case Refused(reason):
            result = UsernameResult.REFUSED
        case Unknown(reason):
            result = UsernameResult.LEFT
        case ToBeNamed():
            reason = "the username backend will generate one (not in a dry run)"
        case ActionRequired(state, comment) if after.state != state:
            result = UsernameResult.LEFT
            reason = f"{comment} (not shown to the user: the account is already {after.state})"
        case _ if before == after:
            return None
        case ActionRequired(comment=reason):
            pass
    return _change(before, after, answer, result, reason)


def _left(before: OfferingUser, after: OfferingUser, answer: Answer, reason: str) -> UsernameChange:
    return _change(before, after, answer, UsernameResult.LEFT, reason)


def _change(
    before: OfferingUser, after: OfferingUser, answer: Answer, result: UsernameResult, reason: str
) -> UsernameChange:
    write = user_write(before, after)
    return UsernameChange(
        user=after,
        what=_what(answer),
        result=result,
        reason=reason,
        write=write if write.changes else None,
    )


def _what(answer: Answer) -> str:
    match answer:
        case Named(username):
            return f"username {username}"
        case ActionRequired(state):
            return state
        case ToBeNamed():
            return "a username"
        case Refused() | Unknown() | Unnamed():
            return "no username"


def _log(log: FilteringBoundLogger, change: UsernameChange) -> None:
    """Log successes; refusals and waits recur in every cycle and are in the report."""
    if change.result is UsernameResult.DONE:
        changes = [str(each) for each in change.write.changes] if change.write else []
        log.info("offering user changed", what=change.what, changes=changes, reason=change.reason)
