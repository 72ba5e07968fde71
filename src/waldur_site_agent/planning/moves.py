"""Which accounts of projects follow their project to another organization, and which stay. Pure.

Only accounts that the agent made are moved, and only away from the account of a customer: whatever
an administrator has put somewhere else stays there and is named.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from waldur_site_agent.backends import BackendResource, BackendState, MoveContainer
from waldur_site_agent.model.backend import Container, Placement
from waldur_site_agent.planning.membership import AccountWanted


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePolicy:
    """What the site and the backend allow."""

    follows: bool
    """Whether accounts of projects follow at all."""
    supported: bool
    """Whether the backend can move accounts."""
    is_of_a_customer: Callable[[BackendResource], bool]
    """Whether an account looks like one that was made for a customer."""


def with_moves(
    accounts: Iterable[AccountWanted],
    placements: Mapping[UUID, Placement],
    state: BackendState,
    policy: MovePolicy,
) -> tuple[AccountWanted, ...]:
    """The accounts; the first of each project that has moved has the move, or why there is none.

    Args:
        accounts: the accounts in scope.
        placements: where Waldur wants the resources of the whole offering, by UUID.
        state: the backend.
        policy: what is allowed.
    """
    moves = _Moves.of(placements, state, policy)
    result = []
    seen: set[str] = set()
    for account in sorted(accounts, key=lambda each: each.id):
        place = moves.place_of(account)
        if place is None or place.parent in seen:
            result.append(account)
            continue
        seen.add(place.parent)
        result.append(moves.decide(account, place))
    return tuple(result)


def projects_in(placements: Iterable[Placement], state: BackendState) -> int:
    """The number of accounts of projects that the backend has."""
    found = {place.parent for place in placements if _project_of(place) is not None}
    return len(found & state.resources.keys())


def _project_of(placement: Placement) -> Container | None:
    """The account of the project, where there is one below the account of its customer."""
    kinds = [container.kind for container in placement.containers]
    return placement.containers[-1] if kinds[-2:] == ["customer", "project"] else None


@dataclass(frozen=True, slots=True)
class _Moves:
    """What moves are decided from."""

    placements: Mapping[UUID, Placement]
    state: BackendState
    policy: MovePolicy
    customers: frozenset[str]
    """The accounts of customers whom Waldur shows."""
    parents: Mapping[str, frozenset[str]]
    """By account of a project, the accounts above it; more than one where Waldur is ambiguous."""
    holders: Mapping[str, frozenset[str]]
    """By organization, the accounts above those that have it."""

    @classmethod
    def of(
        cls, placements: Mapping[UUID, Placement], state: BackendState, policy: MovePolicy
    ) -> _Moves:
        parents: dict[str, frozenset[str]] = {}
        for project in filter(None, map(_project_of, placements.values())):
            parents[project.id] = parents.get(project.id, frozenset()) | {project.parent}
        customers = frozenset[str]().union(*parents.values())
        holders: defaultdict[str, set[str]] = defaultdict(set)
        for found in state.resources.values():
            if found.parent and found.organization != found.id:
                holders[found.organization].add(found.parent)
        above = {organization: frozenset(names) for organization, names in holders.items()}
        return cls(placements, state, policy, customers, parents, above)

    def place_of(self, account: AccountWanted) -> Placement | None:
        """Where an account belongs that is below its project's, or was left on the way there."""
        found = self.state.resources.get(account.id)
        for resource in account.resources:
            place = self.placements.get(resource.uuid)
            if place is None or found is None or _project_of(place) is None:
                continue
            if found.parent == place.parent or self._is_astray(found, place):
                return place
        return None

    def _is_astray(self, found: BackendResource, place: Placement) -> bool:
        return (
            found.organization == place.organization
            and found.parent not in (None, place.parent)
            and self._is_customers(found.parent or "")
        )

    def _is_customers(self, name: str) -> bool:
        found = self.state.resources.get(name)
        return (
            found is not None
            and found.organization == name
            and (name in self.customers or self.policy.is_of_a_customer(found))
        )

    def _astray(self, project: Container) -> tuple[str, ...]:
        """The accounts of customers that hold resources of a project."""
        names = self.holders.get(project.id, frozenset())
        return tuple(sorted(n for n in names if n != project.id and self._is_customers(n)))

    def decide(self, account: AccountWanted, place: Placement) -> AccountWanted:
        """The account with the move of its project, or with why the project's account stays."""
        project = place.containers[-1]
        found = self.state.resources.get(project.id)
        astray = self._astray(project)
        is_there = found is not None and found.parent == project.parent
        if (is_there and not astray) or (found is not None and found.parent is None):
            return account
        stays = self._why_it_stays(found, place, is_interrupted=bool(astray))
        if not stays:
            previous = (found.parent if found is not None else None) or ""
            return replace(account, move=MoveContainer(place.containers, previous, astray))
        above = found.parent if found is not None else None
        where = f'is below "{above}", not below "{project.parent}"'
        return replace(account, not_moved=f'account "{project.id}" {where}: {stays}')

    def _why_it_stays(
        self, found: BackendResource | None, place: Placement, *, is_interrupted: bool
    ) -> str:
        """Why the account of a project is not moved; empty if it is."""
        customer, project = place.containers[-2:]
        wanted = self.parents.get(project.id, frozenset())
        if len(wanted) > 1:
            named = ", ".join(sorted(wanted))
            return f"Waldur shows its project in several organizations ({named})"
        theirs = self._somebody_elses(found, customer, project)
        if theirs:
            return theirs
        if not self.policy.supported:
            return "this backend cannot move accounts"
        if self.policy.follows or is_interrupted:
            return ""
        return "moved_projects is report; move it by hand, or set follow"

    def _somebody_elses(
        self, found: BackendResource | None, customer: Container, project: Container
    ) -> str:
        """Which account is in the way because the agent did not make it, or not so; or empty."""
        new = self.state.resources.get(customer.id)
        if found is not None and found.organization != project.organization:
            return f'it was not made by the agent (organization "{found.organization}")'
        if found is not None and not self._is_customers(found.parent or ""):
            return (
                f'"{found.parent}" is not known as the account of an organization in Waldur; '
                "move it by hand if it should be elsewhere"
            )
        if new is not None and new.organization != customer.organization:
            return (
                f'"{customer.id}" was not made by the agent (organization "{new.organization}"); '
                "rename it or set another customer_prefix"
            )
        if _is_above(project.id, customer.id, self.state):
            return f'"{customer.id}" is below "{project.id}" itself; put it elsewhere by hand'
        return ""


def _is_above(name: str, below: str, state: BackendState) -> bool:
    """Whether ``name`` is ``below`` itself or an account above it."""
    seen: set[str] = set()
    while below not in seen:
        if below == name:
            return True
        seen.add(below)
        found = state.resources.get(below)
        below = (found.parent if found is not None else None) or ""
    return False
