"""The customer's side: accounts of people and of projects, and limits beside those of orders."""

from dataclasses import replace
from decimal import Decimal
from typing import Literal

from waldur_site_agent.sandbox import offering_user_states
from waldur_site_agent.sandbox.answers import invalid
from waldur_site_agent.sandbox.finding import find
from waldur_site_agent.sandbox.portal import Portal, offering_meant
from waldur_site_agent.sandbox.records import (
    Offering,
    OfferingUser,
    PeriodicPolicy,
    Project,
    ProjectAccount,
    Resource,
    User,
    UserLimit,
)
from waldur_site_agent.sandbox.store import Transaction


class AccountSide(Portal):
    """What the portal lets people do with accounts, and with limits that no order changes."""

    def set_account(
        self,
        user: User | str,
        username: str | None = None,
        state: str = "OK",
        is_restricted: bool = False,
        offering: Offering | str | None = None,
    ) -> OfferingUser:
        """Give a person an account at an offering, or change the one there is.

        Without ``username`` it is called what the person is called in Waldur.
        """
        with self._store.change() as tx:
            person = find(tx.world.users, user, "users")
            place = offering_meant(tx, offering)
            account = tx.world.offering_user(place.uuid, person.uuid) or OfferingUser(
                uuid=tx.new_uuid(),
                created=tx.now,
                modified=tx.now,
                user=person.uuid,
                offering=place.uuid,
            )
            account = replace(
                account,
                username=person.username if username is None else username,
                state=state,
                is_restricted=is_restricted,
                modified=tx.now,
            )
            tx.world.put(account)
        return account

    def request_deletion(
        self, user: User | str, offering: Offering | str | None = None
    ) -> OfferingUser:
        """Ask for the deletion of the account that a person has at an offering; it must be OK."""
        with self._store.change() as tx:
            account = _account(tx, user, offering_meant(tx, offering))
            transition = offering_user_states.TRANSITIONS["request_deletion"]
            offering_user_states.move(tx, account, transition, "", "")
            return tx.world.current(account)

    def add_service_account(
        self, project: Project | str, username: str, state: str = "OK", email: str = ""
    ) -> ProjectAccount:
        """Give a project an account for its programs."""
        return self._add_project_account("service", project, username, state, email)

    def add_course_account(
        self, project: Project | str, username: str | None, state: str = "OK", email: str = ""
    ) -> ProjectAccount:
        """Give a project an account for a course; one that is Pending has no username yet."""
        return self._add_project_account("course", project, username, state, email)

    def set_project_account_state(
        self, account: ProjectAccount | str, state: str
    ) -> ProjectAccount:
        """Close an account of a project, or bring it to any other state; closed ones stay."""
        with self._store.change() as tx:
            found = find(tx.world.project_accounts, account, "accounts of projects")
            _require_state(tx, found.kind, state)
            changed = replace(found, state=state, modified=tx.now)
            tx.world.put(changed)
        return changed

    def set_user_limit(
        self,
        resource: Resource | str,
        user: User | str,
        component_type: str,
        limit: Decimal | float | str,
    ) -> UserLimit:
        """Let a person use no more than this of one component of a resource."""
        with self._store.change() as tx:
            found = find(tx.world.resources, resource, "resources")
            place = tx.world.offerings[found.offering]
            account = _account(tx, user, place)
            if component_type not in {each.type for each in place.components}:
                raise invalid({"component": [f"{place.name} has no component {component_type}."]})
            before = tx.world.user_limit(found.uuid, account.uuid, component_type)
            made = UserLimit(
                uuid=before.uuid if before else tx.new_uuid(),
                created=before.created if before else tx.now,
                resource=found.uuid,
                account=account.uuid,
                component_type=component_type,
                limit=_two_places(limit),
            )
            tx.world.put(made)
        return made

    def clear_user_limit(
        self, resource: Resource | str, user: User | str, component_type: str
    ) -> None:
        """Let a person use as much of a component as the resource has; no limit is no error."""
        with self._store.change() as tx:
            found = find(tx.world.resources, resource, "resources")
            account = _account(tx, user, tx.world.offerings[found.offering])
            limit = tx.world.user_limit(found.uuid, account.uuid, component_type)
            if limit is not None:
                tx.world.remove(limit)

    def add_periodic_policy(self, offering: Offering | str | None = None) -> PeriodicPolicy:
        """Let Waldur set the limits of an offering's resources anew each period."""
        with self._store.change() as tx:
            if not tx.generation.has_periodic_policies:
                message = f"a server of release {tx.generation.version} has no periodic policies"
                raise ValueError(message)
            place = offering_meant(tx, offering)
            policy = PeriodicPolicy(uuid=tx.new_uuid(), created=tx.now, offering=place.uuid)
            tx.world.put(policy)
        return policy

    def remove_periodic_policy(self, policy: PeriodicPolicy | str) -> None:
        """Let the limits be the business of orders and of the agent again."""
        with self._store.change() as tx:
            tx.world.remove(find(tx.world.periodic_policies, policy, "periodic policies"))

    def _add_project_account(
        self,
        kind: Literal["service", "course"],
        project: Project | str,
        username: str | None,
        state: str,
        email: str,
    ) -> ProjectAccount:
        with self._store.change() as tx:
            _require_state(tx, kind, state)
            account = ProjectAccount(
                uuid=tx.new_uuid(),
                created=tx.now,
                modified=tx.now,
                kind=kind,
                project=find(tx.world.projects, project, "projects").uuid,
                username=username,
                state=state,
                email=email,
            )
            tx.world.put(account)
        return account


def _account(tx: Transaction, user: User | str, offering: Offering) -> OfferingUser:
    person = find(tx.world.users, user, "users")
    account = tx.world.offering_user(offering.uuid, person.uuid)
    if account is None:
        message = f"{person.username!r} has no account at {offering.name!r}; set_account makes one"
        raise LookupError(message)
    return account


def _require_state(tx: Transaction, kind: str, state: str) -> None:
    known = tx.generation.project_account_states[kind]
    if state not in known:
        message = f"{kind} accounts of this release are {', '.join(known)}; not {state!r}"
        raise ValueError(message)


def _two_places(limit: Decimal | float | str) -> str:
    amount = Decimal(str(limit))
    if not amount.is_finite() or amount < 0:
        raise invalid({"limit": ["A valid number is required."]})
    return f"{amount:.2f}"
