"""Decides which calls give a person a username, and who may not have which.

Pure: what the username backend answered comes in as a value, the calls to Waldur go out as one.
"""

from __future__ import annotations

import enum
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from waldur_site_agent.model.marketplace import OfferingUser
from waldur_site_agent.model.marketplace import OfferingUserState as State

LONGEST_USERNAME = 100
"""Waldur's own limit, in characters."""

POLICY = "username_generation_policy"
BY_PROVIDER = "service_provider"
"""The only policy under which the site makes the names; otherwise Waldur does."""

PENDING = frozenset({State.PENDING_ACCOUNT_LINKING, State.PENDING_ADDITIONAL_VALIDATION})
_IN_THE_MAKING = PENDING | {State.REQUESTED, State.CREATING, State.ERROR_CREATING}

_MADE = re.compile(r"[a-z][a-z0-9._-]*")
_FOUND = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+$-]*")


class Call(enum.Enum):
    """A request to Waldur about one offering user; a plan has them in their order."""

    SET_USERNAME = "set the username"
    SET_OK = "set OK"
    SET_VALIDATION_COMPLETE = "clear what was pending"
    BEGIN_CREATING = "begin creating"
    SET_PENDING_ACCOUNT_LINKING = "wait for account linking"
    SET_PENDING_ADDITIONAL_VALIDATION = "wait for additional validation"
    SET_ERROR_CREATING = "set Error creating"


@dataclass(frozen=True, slots=True)
class Named:
    """The backend found or made this name."""

    username: str


@dataclass(frozen=True, slots=True)
class ToBeNamed:
    """The backend may make a name, but was not asked to because nothing is to change."""


@dataclass(frozen=True, slots=True)
class Unnamed:
    """The backend has no name for the person and makes none."""


@dataclass(frozen=True, slots=True)
class ActionRequired:
    """The person must do something first; ``state`` is one of :data:`PENDING`."""

    state: str
    comment: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """There will be no name until somebody changes something."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The backend could not say; ask again in the next cycle."""

    reason: str


Answer: TypeAlias = Named | ToBeNamed | Unnamed | ActionRequired | Refused | Unknown
"""What came of asking the username backend about one person."""

Holders: TypeAlias = "Mapping[str, frozenset[UUID]]"
"""For each username in lower case, the people who have it."""


def needs_username(user: OfferingUser) -> bool:
    """Whether the username backend is to be asked about this offering user.

    An account that is OK without a name is one too: it is what an interrupted cycle leaves, and
    what servers show that know no states.
    """
    return user.state in _IN_THE_MAKING or (user.state == State.OK and not user.username)


def in_order_of_arrival(users: Iterable[OfferingUser]) -> list[OfferingUser]:
    """Oldest first, so that the same people get the same names however the list came."""

    def age(user: OfferingUser) -> tuple[bool, float, str]:
        created = user.created
        return created is None, created.timestamp() if created else 0.0, str(user.uuid)

    return sorted(users, key=age)


def holders_of(users: Iterable[OfferingUser]) -> Holders:
    """Who has which name, in any state but Deleted; case does not tell names apart."""
    holders: defaultdict[str, set[UUID]] = defaultdict(set)
    for user in users:
        if user.username and user.state != State.DELETED:
            holders[user.username.lower()].add(user.user_uuid)
    return {name: frozenset(people) for name, people in holders.items()}


def duplicates_of(users: Iterable[OfferingUser]) -> dict[str, tuple[OfferingUser, ...]]:
    """The names that several people have, in lower case, each with all who have it."""
    listed = in_order_of_arrival(users)
    shared = {name for name, people in holders_of(listed).items() if len(people) > 1}
    return {
        name: tuple(
            user for user in listed if user.username.lower() == name and user.state != State.DELETED
        )
        for name in sorted(shared)
    }


def why_unfit(username: str, *, found: bool) -> str:
    """Why a name cannot be used; empty when it can.

    A name that the backend found is a fact of the site and may have capitals, ``@``, or begin
    with a digit; one that it made may not.
    """
    if not username:
        return "the name is empty"
    if len(username) > LONGEST_USERNAME:
        return f"the name has {len(username)} characters, {LONGEST_USERNAME} are allowed"
    if username.lower() == "root":
        return "no person is to be root"
    if found and not _FOUND.fullmatch(username):
        return "a name is made of letters a-z, digits and . _ - @ + $"
    if not found and not _MADE.fullmatch(username):
        return "a name is made of a-z, 0-9 and . _ - and begins with a letter"
    return ""


def grant(user: OfferingUser, username: str, holders: Holders, *, found: bool) -> Answer:
    """Let the person have a name that is fit and nobody else's; refuse it otherwise."""
    if unfit := why_unfit(username, found=found):
        return Refused(f"{username!r} cannot be the username: {unfit}")
    others = holders.get(username.lower(), frozenset()) - {user.user_uuid}
    if others:
        who = ", ".join(sorted(str(person) for person in others))
        return Refused(
            f'username "{username}" belongs to another person of this offering (user {who}); '
            "give one of the two another name"
        )
    return Named(username)


def as_it_is(
    listed: OfferingUser, current: OfferingUser, answer: Answer, holders: Holders
) -> tuple[OfferingUser, Answer]:
    """The person as read by itself, with the answer as far as it still holds.

    A name that was given meanwhile is kept, and never given to a second person.
    """
    if not needs_username(current):
        return current, Unnamed()
    if current.username not in ("", listed.username):
        answer = Named(current.username)
    if isinstance(answer, Named):
        others = holders.get(answer.username.lower(), frozenset()) - {current.user_uuid}
        if others:
            reason = f'username "{answer.username}" was given to another person a moment ago'
            return current, Unknown(reason)
    return current, answer


def plan_calls(user: OfferingUser, answer: Answer) -> tuple[Call, ...]:
    """The fewest calls that make an offering user what the backend's answer says.

    ``SET_OK`` after ``SET_USERNAME`` is for servers on which a name does not complete the
    account; where its answer says that it did, the call is left out.
    """
    match answer:
        case Named(username):
            return _calls_for_name(user, username)
        case ActionRequired():
            return _calls_for_pending(user, answer)
        case Refused() if user.state in _IN_THE_MAKING - {State.ERROR_CREATING}:
            return (Call.SET_ERROR_CREATING,)
        case _:
            return ()


def _calls_for_name(user: OfferingUser, username: str) -> tuple[Call, ...]:
    calls: list[Call] = []
    # An account with another name stays pending until it has the new one: a cycle that ends
    # between the two calls must not leave it OK under the old name.
    if user.state in PENDING and _has_comment(user) and user.username in ("", username):
        calls.append(Call.SET_VALIDATION_COMPLETE)
    if user.username != username:
        calls.append(Call.SET_USERNAME)
    if user.state != State.OK and Call.SET_VALIDATION_COMPLETE not in calls:
        calls.append(Call.SET_OK)
    return tuple(calls)


def _calls_for_pending(user: OfferingUser, answer: ActionRequired) -> tuple[Call, ...]:
    wait = {
        State.PENDING_ACCOUNT_LINKING: Call.SET_PENDING_ACCOUNT_LINKING,
        State.PENDING_ADDITIONAL_VALIDATION: Call.SET_PENDING_ADDITIONAL_VALIDATION,
    }[answer.state]
    if user.state == State.OK:  # there is no way back from OK
        return ()
    if user.state == State.REQUESTED:
        return Call.BEGIN_CREATING, wait
    if user.state != answer.state:
        return (wait,)
    if _says(user, answer):
        return ()
    # Waldur refuses to enter a state that an account is in, even with another comment.
    return Call.SET_ERROR_CREATING, wait


def _says(user: OfferingUser, answer: ActionRequired) -> bool:
    return answer.comment in ("", user.service_provider_comment) and answer.url in (
        "",
        user.service_provider_comment_url,
    )


def _has_comment(user: OfferingUser) -> bool:
    return bool(user.service_provider_comment or user.service_provider_comment_url)
