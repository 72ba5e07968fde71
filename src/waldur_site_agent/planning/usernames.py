"""Plans the calls that assign a username to an offering user, and rejects unfit or taken names.

Pure: the answer of the username backend comes in as a value, and the calls go out as one.
"""

from __future__ import annotations

import enum
import re
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
"""The only policy under which the site makes usernames; otherwise Waldur does."""

PENDING = frozenset({State.PENDING_ACCOUNT_LINKING, State.PENDING_ADDITIONAL_VALIDATION})
_IN_THE_MAKING = PENDING | {State.REQUESTED, State.CREATING, State.ERROR_CREATING}

_MADE = re.compile(r"[a-z][a-z0-9._-]*")
_FOUND = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+$-]*")


class Call(enum.Enum):
    """A request to Waldur about one offering user."""

    SET_USERNAME = "set the username"
    SET_OK = "set OK"
    SET_VALIDATION_COMPLETE = "clear what was pending"
    BEGIN_CREATING = "begin creating"
    SET_PENDING_ACCOUNT_LINKING = "wait for account linking"
    SET_PENDING_ADDITIONAL_VALIDATION = "wait for additional validation"
    SET_ERROR_CREATING = "set Error creating"


@dataclass(frozen=True, slots=True)
class Named:
    """The backend found or generated this name."""

    username: str


@dataclass(frozen=True, slots=True)
class ToBeNamed:
    """The backend may generate a name, but was not asked to in a dry run."""


@dataclass(frozen=True, slots=True)
class Unnamed:
    """The backend has no name for the user and generates none."""


@dataclass(frozen=True, slots=True)
class ActionRequired:
    """The user must do something first; ``state`` is one of :data:`PENDING`."""

    state: str
    comment: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """No name until somebody changes something."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The backend could not answer; retry in the next cycle."""

    reason: str


Answer: TypeAlias = Named | ToBeNamed | Unnamed | ActionRequired | Refused | Unknown
"""The result of asking the username backend about one user."""

Holders: TypeAlias = "Mapping[str, frozenset[UUID]]"
"""By username in lower case, the UUIDs of the users who have it."""


def needs_username(user: OfferingUser) -> bool:
    """Whether to ask the username backend about this offering user.

    This includes users in state OK without a username, as left by an interrupted cycle or shown
    by servers without states.
    """
    return user.state in _IN_THE_MAKING or (user.state == State.OK and not user.username)


def in_order_of_arrival(users: Iterable[OfferingUser]) -> list[OfferingUser]:
    """Oldest first, so that names do not depend on the order of the list."""

    def age(user: OfferingUser) -> tuple[bool, float, str]:
        created = user.created
        return created is None, created.timestamp() if created else 0.0, str(user.uuid)

    return sorted(users, key=age)


def holders_of(users: Iterable[OfferingUser]) -> Holders:
    """The users by username, in any state but Deleted; case-insensitive."""
    holders: dict[str, frozenset[UUID]] = {}
    for user in users:
        if name := _name_held(user):
            holders[name] = holders.get(name, frozenset()) | {user.user_uuid}
    return holders


def _name_held(user: OfferingUser) -> str:
    return "" if user.state == State.DELETED else user.username.lower()


def duplicates_of(users: Iterable[OfferingUser]) -> dict[str, tuple[OfferingUser, ...]]:
    """The usernames in lower case that several users have, with those users."""
    seen: set[str] = set()
    repeated: set[str] = set()
    users = tuple(users)
    for name in map(_name_held, users):
        (repeated if name in seen else seen).add(name)
    repeated.discard("")
    listed = in_order_of_arrival(user for user in users if _name_held(user) in repeated)
    return {
        name: tuple(user for user in listed if _name_held(user) == name)
        for name, people in sorted(holders_of(listed).items())
        if len(people) > 1
    }


def why_unfit(username: str, *, found: bool) -> str:
    """Why a name cannot be used; empty if it can.

    A name that the backend found exists at the site, so it may have capitals, ``@``, or begin with
    a digit; a generated one may not.
    """
    if not username:
        return "the name is empty"
    if len(username) > LONGEST_USERNAME:
        return f"the name has {len(username)} characters; at most {LONGEST_USERNAME} are allowed"
    if username.lower() == "root":
        return "root is reserved"
    if found and not _FOUND.fullmatch(username):
        return "a name may have letters a-z, digits and . _ - @ + $"
    if not found and not _MADE.fullmatch(username):
        return "a name may have a-z, 0-9 and . _ - and begins with a letter"
    return ""


def grant(user: OfferingUser, username: str, holders: Holders, *, found: bool) -> Answer:
    """Accept the name if it is valid and not taken by another user; refuse it otherwise."""
    if unfit := why_unfit(username, found=found):
        return Refused(f"{username!r} cannot be the username: {unfit}")
    others = holders.get(username.lower(), frozenset()) - {user.user_uuid}
    if others:
        who = ", ".join(sorted(str(person) for person in others))
        return Refused(
            f'username "{username}" belongs to another user of this offering (user {who}); '
            "give one of them a different username"
        )
    return Named(username)


def as_it_is(
    listed: OfferingUser, current: OfferingUser, answer: Answer, holders: Holders
) -> tuple[OfferingUser, Answer]:
    """The user as read individually, with the answer as far as it is still valid.

    A name that was assigned in the meantime is kept, and never assigned to a second user.
    """
    if not needs_username(current):
        return current, Unnamed()
    if current.username not in ("", listed.username):
        answer = Named(current.username)
    if isinstance(answer, Named):
        others = holders.get(answer.username.lower(), frozenset()) - {current.user_uuid}
        if others:
            reason = f'username "{answer.username}" was just assigned to another user'
            return current, Unknown(reason)
    return current, answer


def plan_calls(user: OfferingUser, answer: Answer) -> tuple[Call, ...]:
    """The minimal calls that bring an offering user in line with the backend's answer.

    ``SET_OK`` after ``SET_USERNAME`` is for servers on which a username does not complete the
    account; it is skipped if the response shows that it did.
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
    # With a different username the user stays pending until the new one is set: a cycle that ends
    # between the two calls must not leave the user OK with the old one.
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
    if user.state == State.OK:  # Waldur does not allow leaving OK
        return ()
    if user.state == State.REQUESTED:
        return Call.BEGIN_CREATING, wait
    if user.state != answer.state:
        return (wait,)
    if _says(user, answer):
        return ()
    # Waldur rejects a transition to the current state, even with a different comment.
    return Call.SET_ERROR_CREATING, wait


def _says(user: OfferingUser, answer: ActionRequired) -> bool:
    return answer.comment in ("", user.service_provider_comment) and answer.url in (
        "",
        user.service_provider_comment_url,
    )


def _has_comment(user: OfferingUser) -> bool:
    return bool(user.service_provider_comment or user.service_provider_comment_url)
