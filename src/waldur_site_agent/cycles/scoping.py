"""What part of an offering a pass looks at, and what it saw there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from waldur_site_agent.model.people import OfferingUserState
from waldur_site_agent.model.scopes import (
    Everything,
    ImportScope,
    OrderScope,
    ProjectScope,
    ResourceScope,
    UserScope,
)
from waldur_site_agent.planning.usernames import PENDING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from uuid import UUID

    from waldur_site_agent.model.orders import Resource
    from waldur_site_agent.model.people import OfferingUser
    from waldur_site_agent.model.scopes import Scope

WHOLE_OFFERING: frozenset[Scope] = frozenset({Everything()})
"""What the polling modes look at."""

_TRIED_BY_FULL_PASSES = PENDING | {OfferingUserState.ERROR_CREATING}


@dataclass(frozen=True, slots=True)
class Sight:
    """The union of some scopes."""

    everything: bool = False
    orders: frozenset[UUID] = frozenset()
    resources: frozenset[UUID] = frozenset()
    projects: frozenset[UUID] = frozenset()
    users: frozenset[UUID] = frozenset()
    imports: frozenset[UUID] = frozenset()

    @classmethod
    def of(cls, scopes: Collection[Scope]) -> Sight:
        """What all the scopes together look at."""
        return cls(
            everything=Everything() in scopes,
            orders=frozenset(s.uuid for s in scopes if isinstance(s, OrderScope)),
            resources=frozenset(s.uuid for s in scopes if isinstance(s, ResourceScope)),
            projects=frozenset(s.uuid for s in scopes if isinstance(s, ProjectScope)),
            users=frozenset(s.uuid for s in scopes if isinstance(s, UserScope)),
            imports=frozenset(s.uuid for s in scopes if isinstance(s, ImportScope)),
        )

    def holds_user(self, user: OfferingUser) -> bool:
        """Whether this person's own account is looked at."""
        return self.everything or user.user_uuid in self.users

    def names_user(self, user: OfferingUser) -> bool:
        """Whether this person may get a username now.

        A project's newcomers may, whatever woke the pass; who waits for something that the site
        has to find out is asked about by full passes only, and when an event is about them.
        """
        return self.holds_user(user) or user.state not in _TRIED_BY_FULL_PASSES

    def choose(self, resources: Iterable[Resource]) -> list[Resource]:
        """The resources to look at: those in sight, and all that share an account with them.

        Half of the resources of an account would take the members of the other half away. Where
        a person is looked at, everything is: who may use what is known only after it was read.
        """
        listed = list(resources)
        if self.everything or self.users:
            return listed
        accounts = {
            resource.account
            for resource in listed
            if resource.uuid in self.resources or resource.project_uuid in self.projects
        }
        return [resource for resource in listed if resource.account in accounts]

    def holds_account(
        self, resources: Iterable[Resource], people: Collection[str], names: Collection[str]
    ) -> bool:
        """Whether an account is looked at.

        Args:
            resources: the resources that the account belongs to.
            people: who is in the account or is to be.
            names: the usernames of the people in sight.
        """
        return (
            self.everything
            or any(r.uuid in self.resources or r.project_uuid in self.projects for r in resources)
            or any(name in people for name in names)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a pass read in Waldur, so that it can be held against what an event announced.

    What a pass did not look at is missing here, which is not the same as empty.
    """

    orders: Mapping[UUID, str] = field(default_factory=dict)
    """The states of orders."""
    roles: Mapping[UUID, frozenset[tuple[UUID, str]]] = field(default_factory=dict)
    """By project, the people and the short names of their roles."""
    resources: Mapping[UUID, Resource] = field(default_factory=dict)
    users: Mapping[UUID, OfferingUser] = field(default_factory=dict)
    """By person."""
    accounts: Mapping[UUID, frozenset[str]] = field(default_factory=dict)
    """By project, the usernames of the service and course accounts that work."""


def short_role(name: str) -> str:
    """A role's name as all lists are made to spell it: ``PROJECT.ADMIN`` is ``admin``."""
    return name.strip().lower().removeprefix("project.")
