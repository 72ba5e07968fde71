"""Who may see and change what: tokens name a user, roles give rights on a customer or offering."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from waldur_site_agent_sandbox.generations import Generation
from waldur_site_agent_sandbox.http import denied, not_authenticated
from waldur_site_agent_sandbox.records import Customer, Offering, Role, User
from waldur_site_agent_sandbox.store import Transaction, World


class Sessions:
    """Last use of each token. Not part of the world, because a request does not change it."""

    def __init__(self) -> None:
        self._last_seen: dict[str, datetime] = {}
        self._expired: set[str] = set()

    def authenticate(self, tx: Transaction, header: str) -> User:
        """Return the user whose token is in an Authorization header.

        Raises:
            RefusedError: 401 with the reason.
        """
        scheme, _, token = header.partition(" ")
        if scheme.lower() not in {"token", "bearer"}:
            raise not_authenticated("Authentication credentials were not provided.")
        if not token.strip():
            raise not_authenticated("Invalid token header. No credentials provided.")
        for user in tx.world.users.values():
            if user.token and user.token == token.strip():
                self._admit(user, tx.now)
                return user
        raise not_authenticated("Invalid token.")

    def expire(self, user: User) -> None:
        """Expire a user's token."""
        self._expired.add(user.uuid)

    def renew(self, user: User) -> None:
        """Reset the age of a user's token."""
        self._expired.discard(user.uuid)
        self._last_seen.pop(user.uuid, None)

    def _admit(self, user: User, now: datetime) -> None:
        if not user.is_active:
            raise not_authenticated("User inactive or deleted.")
        last_seen = self._last_seen.get(user.uuid, now)
        if user.token_lifetime is not None:
            silence = now - last_seen
            if silence > timedelta(seconds=user.token_lifetime):
                self._expired.add(user.uuid)
        if user.uuid in self._expired:
            raise not_authenticated("Token has expired.")
        self._last_seen[user.uuid] = now


APPROVE_ORDER = "ORDER.APPROVE"
REJECT_ORDER = "ORDER.REJECT"
SET_STATE = "RESOURCE.SET_STATE"
SET_BACKEND_ID = "RESOURCE.SET_BACKEND_ID"
SET_BACKEND_METADATA = "RESOURCE.SET_BACKEND_METADATA"
SET_USAGE = "RESOURCE.SET_USAGE"
UPDATE_COMPONENTS = "OFFERING.UPDATE_COMPONENTS"
UPDATE_USER = "OFFERING.UPDATE_USER"
CREATE_OFFERING = "OFFERING.CREATE"
MANAGE_BACKEND_RESOURCES = "OFFERING.MANAGE_BACKEND_RESOURCES"
LIST_PROJECTS = "SERVICE_PROVIDER.LIST_PROJECTS"
LIST_PROJECT_PERMISSIONS = "SERVICE_PROVIDER.LIST_PROJECT_PERMISSIONS"

CUSTOMER = frozenset({"customer"})
OFFERING_OR_CUSTOMER = frozenset({"offering", "customer"})

_PROVIDER_RIGHTS = frozenset(
    {
        APPROVE_ORDER,
        REJECT_ORDER,
        SET_STATE,
        SET_BACKEND_ID,
        SET_BACKEND_METADATA,
        SET_USAGE,
        UPDATE_COMPONENTS,
        UPDATE_USER,
        CREATE_OFFERING,
        MANAGE_BACKEND_RESOURCES,
        LIST_PROJECTS,
        LIST_PROJECT_PERMISSIONS,
    }
)
_CUSTOMER_MANAGER_RIGHTS = _PROVIDER_RIGHTS - {APPROVE_ORDER, REJECT_ORDER, SET_USAGE}
_OFFERING_MANAGER_RIGHTS = frozenset({SET_BACKEND_ID, SET_BACKEND_METADATA, SET_USAGE})
_LATER_OFFERING_MANAGER_RIGHTS = frozenset({SET_STATE, MANAGE_BACKEND_RESOURCES})


def rights_of(role: str, generation: Generation) -> frozenset[str]:
    """The permissions of a role on its scope; project roles have none here."""
    if role == "CUSTOMER.OWNER":
        return _PROVIDER_RIGHTS
    if role == "CUSTOMER.MANAGER":
        return _CUSTOMER_MANAGER_RIGHTS
    if role == "OFFERING.MANAGER":
        newest = generation.accepts_offering_scope
        later = _LATER_OFFERING_MANAGER_RIGHTS if newest else frozenset()
        return _OFFERING_MANAGER_RIGHTS | later
    return frozenset()


def require(
    tx: Transaction, user: User, right: str, offering: Offering, scopes: frozenset[str] = CUSTOMER
) -> None:
    """Require a permission on the offering or its customer.

    Raises:
        RefusedError: 403.
    """
    allowed = user.is_staff or any(
        right in rights_of(role.name, tx.generation)
        for role in _provider_roles(tx, user, offering)
        if role.scope_type in scopes
    )
    if not allowed:
        raise denied()


@dataclass(frozen=True, slots=True)
class Visibility:
    """What a user may see, determined once for a whole list."""

    world: World
    everything: bool
    scopes: frozenset[str]

    def as_provider(self, offering: str) -> bool:
        """Return whether the user has any role on an offering or its provider."""
        customer = self.world.offerings[offering].customer
        return self.everything or offering in self.scopes or customer in self.scopes

    def as_consumer(self, project: str) -> bool:
        """Return whether the user has any role in a project or its organization."""
        customer = self.world.projects[project].customer
        return self.everything or project in self.scopes or customer in self.scopes


def visibility_of(tx: Transaction, user: User) -> Visibility:
    """Determine what a user may see."""
    scopes = frozenset(role.scope for role in roles_of(tx, user))
    return Visibility(tx.world, user.is_staff, scopes)


def roles_of(tx: Transaction, user: User) -> Iterator[Role]:
    """Yield a user's active roles."""
    return (role for role in tx.world.active_roles(tx.now) if role.user == user.uuid)


def has_role_on(tx: Transaction, user: User, customer: Customer) -> bool:
    """Return whether the user has any role on an organization itself."""
    return user.is_staff or any(role.scope == customer.uuid for role in roles_of(tx, user))


def _provider_roles(tx: Transaction, user: User, offering: Offering) -> Iterator[Role]:
    scopes = {offering.uuid, offering.customer}
    return (role for role in roles_of(tx, user) if role.scope in scopes)
