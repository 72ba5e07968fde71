"""Who may use what: project roles and the usernames that people have at the site."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID


def has_ended(end: datetime | None, now: datetime) -> bool:
    """Whether a role's end has passed at an aware moment; an end without a zone means UTC.

    Waldur's own clean-up of such roles may come hours later.
    """
    if end is None:
        return False
    return (end if end.tzinfo else end.replace(tzinfo=UTC)) <= now


class OfferingUserState:
    """The states of an offering user that the agent acts on; there are others."""

    REQUESTED = "Requested"
    CREATING = "Creating"
    PENDING_ACCOUNT_LINKING = "Pending account linking"
    PENDING_ADDITIONAL_VALIDATION = "Pending additional validation"
    OK = "OK"
    REQUESTED_DELETION = "Requested deletion"
    DELETING = "Deleting"
    DELETED = "Deleted"
    ERROR_CREATING = "Error creating"
    ERROR_DELETING = "Error deleting"


KNOWN_USER_STATES = frozenset(
    value for name, value in vars(OfferingUserState).items() if name.isupper()
)
"""Of a state that a newer server has the agent does not know what it means for access."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferingUser:
    """A person's account name (``username``) at one offering; unique by ``user_uuid`` there."""

    uuid: UUID
    user_uuid: UUID
    username: str = ""
    state: str = OfferingUserState.OK
    """Servers before the states were introduced send none: an account then counts as usable."""
    is_restricted: bool = False
    user_username: str = ""
    user_full_name: str = ""
    user_first_name: str = ""
    """Empty, as the last name and the e-mail address, where the offering does not expose it."""
    user_last_name: str = ""
    user_email: str = ""
    service_provider_comment: str = ""
    """What the site tells the person who waits for the account."""
    service_provider_comment_url: str = ""
    created: datetime | None = None
    modified: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamMember:
    """A person with an active role in a project, as the team of one resource lists them."""

    uuid: UUID
    """The person's own UUID, not that of the role or of the offering user."""
    username: str = ""
    full_name: str = ""
    role: str = ""
    expiration_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectRole:
    """An active role of one person in one project, from the provider's list of all projects."""

    project_uuid: UUID
    user_uuid: UUID
    user_username: str = ""
    role_name: str = ""
    expiration_time: datetime | None = None


class ProjectAccountState:
    """The states of a project's service and course accounts; newer servers may have others."""

    OK = "OK"
    PENDING = "Pending"
    """A course account that has no username yet."""
    CLOSED = "Closed"
    """Closed accounts stay listed."""
    ERRED = "Erred"


KNOWN_ACCOUNT_STATES = frozenset(
    value for name, value in vars(ProjectAccountState).items() if name.isupper()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectAccount:
    """An account of a project instead of a person: a service account or a course account."""

    uuid: UUID
    project_uuid: UUID | None = None
    username: str = ""
    state: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One role of the agent's own user: on what it holds, and which."""

    role_name: str = ""
    scope_type: str = ""
    scope_uuid: UUID | None = None
    scope_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The user whose token the agent presents."""

    uuid: UUID
    username: str = ""
    full_name: str = ""
    is_staff: bool = False
    token_lifetime: int | None = None
    """Seconds of silence after which the token dies; ``None`` means never."""
    permissions: tuple[Permission, ...] = ()
