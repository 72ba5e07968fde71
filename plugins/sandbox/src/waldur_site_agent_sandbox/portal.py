"""The customer's side, but for people and orders: accounts, user limits, usage, imports, reminders.

``Portal`` and ``change`` are what every action is built on.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from functools import wraps
from http import HTTPStatus
from typing import Concatenate, Literal, ParamSpec, TypeVar

from waldur_site_agent_sandbox import events, policies, rules, states
from waldur_site_agent_sandbox.broker import Occurrence
from waldur_site_agent_sandbox.http import RefusedError, as_uuid, invalid
from waldur_site_agent_sandbox.records import (
    BackendResource,
    BackendResourceRequest,
    ComponentUsage,
    JsonObject,
    Offering,
    OfferingUser,
    PeriodicPolicy,
    PolicyResult,
    Project,
    ProjectAccount,
    Resource,
    User,
    UserLimit,
    UserUsage,
)
from waldur_site_agent_sandbox.rules import Sessions
from waldur_site_agent_sandbox.store import Record, Store, Transaction, World, name_of_table

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=Record)


class Portal:
    """Access to the store for everybody who does not use the API."""

    def __init__(self, store: Store, sessions: Sessions) -> None:
        self._store = store
        self._sessions = sessions

    @property
    def world(self) -> World:
        """The current content of this Waldur."""
        return self._store.read().world

    def current(self, record: R) -> R:
        """Return a record as it is now.

        Raises:
            KeyError: It was removed.
        """
        return self.world.current(record)

    def edit(self, record: R, **changes: object) -> R:
        """Change any field of a record, as only an administrator of the database can."""
        with self._store.change() as tx:
            changed = replace(tx.world.current(record), **changes)  # type: ignore[arg-type]  # the caller's field names
            tx.world.put(changed)
        return changed


S = TypeVar("S", bound=Portal)


def change(method: Callable[Concatenate[S, Transaction, P], T]) -> Callable[Concatenate[S, P], T]:
    """Run a method in a transaction, its first argument, which callers do not see."""

    @wraps(method)
    def in_transaction(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._store.change() as tx:
            return method(self, tx, *args, **kwargs)

    signature = inspect.signature(method)
    visible = [each for name, each in signature.parameters.items() if name != "tx"]
    vars(in_transaction)["__signature__"] = signature.replace(parameters=visible)
    return in_transaction


def find(tx: Transaction, kind: type[R], wanted: R | str) -> R:
    """Return the record that a person means, by UUID, slug, username or name.

    Raises:
        LookupError: No record or more than one matches.
    """
    table = tx.world.table(kind)
    if not isinstance(wanted, str):
        return table[wanted.uuid]
    uuid = as_uuid(wanted)
    if uuid is not None and uuid in table:
        return table[uuid]
    found = [row for row in table.values() if wanted in _names(row)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} {name_of_table(kind)} called {wanted!r}; use the UUID")
    return found[0]


def _names(record: Record) -> set[str]:
    return {str(getattr(record, field, "")) for field in ("slug", "username", "name")}


def offering_or_first(tx: Transaction, wanted: Offering | str | None) -> Offering:
    """Return the offering that a person means; without one, the first."""
    return next(iter(tx.world.offerings.values())) if wanted is None else find(tx, Offering, wanted)


class AccountSide(Portal):
    """Accounts, and limits that are not changed by orders."""

    @change
    def set_account(
        self,
        tx: Transaction,
        user: User | str,
        username: str | None = None,
        state: str = "OK",
        is_restricted: bool = False,
        offering: Offering | str | None = None,
    ) -> OfferingUser:
        """Create or change a person's account at an offering.

        Without ``username``, the account has the person's username in Waldur.
        """
        person = find(tx, User, user)
        place = offering_or_first(tx, offering)
        account = tx.world.offering_user(place.uuid, person.uuid) or OfferingUser(
            uuid=tx.new_uuid(),
            created=tx.now,
            modified=tx.now,
            user=person.uuid,
            offering=place.uuid,
        )
        return tx.world.put(
            replace(
                account,
                username=person.username if username is None else username,
                state=state,
                is_restricted=is_restricted,
                modified=tx.now,
            )
        )

    @change
    def set_consent(
        self,
        tx: Transaction,
        user: User | str,
        *,
        given: bool,
        offering: Offering | str | None = None,
    ) -> OfferingUser:
        """Let a person consent to the terms of service of an offering, or revoke that."""
        account = _account(tx, user, offering_or_first(tx, offering))
        return tx.world.put(replace(account, modified=tx.now, has_consent=given))

    @change
    def request_deletion(
        self, tx: Transaction, user: User | str, offering: Offering | str | None = None
    ) -> OfferingUser:
        """Request deletion of a person's account at an offering; the account must be OK."""
        account = _account(tx, user, offering_or_first(tx, offering))
        transition = states.TRANSITIONS["request_deletion"]
        states.move(tx, account, transition, "", "")
        return tx.world.current(account)

    def add_service_account(
        self, project: Project | str, username: str, state: str = "OK", email: str = ""
    ) -> ProjectAccount:
        """Create a service account for a project."""
        return self._add_project_account("service", project, username, state, email)

    def add_course_account(
        self, project: Project | str, username: str | None, state: str = "OK", email: str = ""
    ) -> ProjectAccount:
        """Create a course account for a project; a Pending one has no username yet."""
        return self._add_project_account("course", project, username, state, email)

    @change
    def set_project_account_state(
        self, tx: Transaction, account: ProjectAccount | str, state: str
    ) -> ProjectAccount:
        """Set the state of a project's account; closed accounts remain in the list."""
        found = find(tx, ProjectAccount, account)
        _require_state(tx, found.kind, state)
        return tx.world.put(replace(found, state=state, modified=tx.now))

    @change
    def set_user_limit(
        self,
        tx: Transaction,
        resource: Resource | str,
        user: User | str,
        component_type: str,
        limit: Decimal | float | str,
    ) -> UserLimit:
        """Limit a person's use of one component of a resource."""
        found = find(tx, Resource, resource)
        place = tx.world.offerings[found.offering]
        account = _account(tx, user, place)
        if component_type not in {each.type for each in place.components}:
            raise invalid({"component": [f"{place.name} has no component {component_type}."]})
        before = tx.world.user_limit(found.uuid, account.uuid, component_type)
        return tx.world.put(
            UserLimit(
                uuid=before.uuid if before else tx.new_uuid(),
                created=before.created if before else tx.now,
                resource=found.uuid,
                account=account.uuid,
                component_type=component_type,
                limit=_two_places(limit),
            )
        )

    @change
    def clear_user_limit(
        self, tx: Transaction, resource: Resource | str, user: User | str, component_type: str
    ) -> None:
        """Remove a person's limit for a component, if there is one."""
        found = find(tx, Resource, resource)
        account = _account(tx, user, tx.world.offerings[found.offering])
        limit = tx.world.user_limit(found.uuid, account.uuid, component_type)
        if limit is not None:
            tx.world.remove(limit)

    @change
    def add_periodic_policy(
        self,
        tx: Transaction,
        offering: Offering | str | None = None,
        *,
        period: int = 3,
        limit_type: str = "GrpTRESMins",
        carryover_enabled: bool = True,
        carryover_factor: int = 50,
        grace_ratio: float = 0.2,
        raw_usage_reset: bool = True,
        tres_billing_enabled: bool = True,
        apply_to_all: bool = True,
    ) -> PeriodicPolicy:
        """Make Waldur set the limits of an offering's resources each period."""
        if not tx.generation.has_periodic_policies:
            message = f"a server of release {tx.generation.version} has no periodic policies"
            raise ValueError(message)
        return tx.world.put(
            PeriodicPolicy(
                uuid=tx.new_uuid(),
                created=tx.now,
                offering=offering_or_first(tx, offering).uuid,
                period=period,
                limit_type=limit_type,
                carryover_enabled=carryover_enabled,
                carryover_factor=carryover_factor,
                grace_ratio=grace_ratio,
                raw_usage_reset=raw_usage_reset,
                tres_billing_enabled=tres_billing_enabled,
                apply_to_all=apply_to_all,
            )
        )

    @change
    def send_periodic_limits(self, tx: Transaction) -> int:
        """Do what the server does every ten minutes: send changed settings of policies.

        Returns the number of messages. They are forgotten after a day, and then sent again.
        """
        sent = 0
        for policy in tx.world.periodic_policies.values():
            for resource in tx.world.resources.values():
                if resource.offering != policy.offering or resource.state != "OK":
                    continue
                what = policies.message(tx, policy, resource)
                if what is not None:
                    self._store.announce(what, tx)
                    sent += 1
        return sent

    def policy_results(self, resource: Resource | str) -> list[PolicyResult]:
        """Return what agents reported of applying policies to a resource, oldest first."""
        tx = self._store.read()
        found = find(tx, Resource, resource)
        return [row for row in tx.world.policy_results.values() if row.resource == found.uuid]

    @change
    def remove_periodic_policy(self, tx: Transaction, policy: PeriodicPolicy | str) -> None:
        """Leave limits to orders and the agent again."""
        tx.world.remove(find(tx, PeriodicPolicy, policy))

    @change
    def _add_project_account(
        self,
        tx: Transaction,
        kind: Literal["service", "course"],
        project: Project | str,
        username: str | None,
        state: str,
        email: str,
    ) -> ProjectAccount:
        _require_state(tx, kind, state)
        return tx.world.put(
            ProjectAccount(
                uuid=tx.new_uuid(),
                created=tx.now,
                modified=tx.now,
                kind=kind,
                project=find(tx, Project, project).uuid,
                username=username,
                state=state,
                email=email,
            )
        )


def _account(tx: Transaction, user: User | str, offering: Offering) -> OfferingUser:
    person = find(tx, User, user)
    account = tx.world.offering_user(offering.uuid, person.uuid)
    if account is None:
        message = f"{person.username!r} has no account at {offering.name!r}; use set_account"
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


class UsageSide(Portal):
    """Reported usage. A month is any of its days or ``2026-11``; default: the current month."""

    def usage_rows(
        self, resource: Resource | str, month: date | str | None = None
    ) -> list[ComponentUsage]:
        """Return the stored rows of a month, oldest first."""
        tx = self._store.read()
        found = find(tx, Resource, resource)
        first = _first_day(tx, month)
        rows = tx.world.component_usages.values()
        return [row for row in rows if (row.resource, row.billing_period) == (found.uuid, first)]

    def usages(
        self, resource: Resource | str, month: date | str | None = None
    ) -> dict[str, Decimal]:
        """Return what a customer pays for in a month, by component, summed over all plans."""
        total: dict[str, Decimal] = defaultdict(Decimal)
        for row in self.usage_rows(resource, month):
            total[row.component_type] += row.usage
        return dict(total)

    def user_usages(
        self, resource: Resource | str, month: date | str | None = None
    ) -> dict[str, dict[str, Decimal]]:
        """Return each person's usage in a month, by username and component."""
        used: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
        for parent in self.usage_rows(resource, month):
            for row in rules.user_rows(self._store.read(), parent):
                used[row.username][parent.component_type] += row.usage
        return {username: dict(amounts) for username, amounts in used.items()}

    @change
    def put_usage(
        self,
        tx: Transaction,
        resource: Resource | str,
        component_type: str,
        usage: Decimal | float | str,
        month: date | str | None = None,
        plan_period: str = "",
    ) -> ComponentUsage:
        """Store a usage as only an administrator of the database can, in any month.

        A different ``plan_period`` makes a second row beside the one that reports change.
        """
        found = find(tx, Resource, resource)
        first = _first_day(tx, month)
        before = rules.row_of(tx, found.uuid, component_type, first, plan_period)
        return tx.world.put(
            ComponentUsage(
                uuid=before.uuid if before else tx.new_uuid(),
                created=before.created if before else tx.now,
                reported=tx.now,
                resource=found.uuid,
                component_type=component_type,
                billing_period=first,
                usage=Decimal(str(usage)),
                plan_period=plan_period,
            )
        )

    @change
    def put_user_usage(
        self,
        tx: Transaction,
        parent: ComponentUsage | str,
        username: str,
        usage: Decimal | float | str,
    ) -> UserUsage:
        """Store one person's usage, as only an administrator of the database can."""
        return tx.world.put(
            UserUsage(
                uuid=tx.new_uuid(),
                created=tx.now,
                modified=tx.now,
                component_usage=find(tx, ComponentUsage, parent).uuid,
                username=username,
                usage=Decimal(str(usage)),
            )
        )


def _first_day(tx: Transaction, month: date | str | None) -> date:
    if month is None:
        return rules.month_of(tx.now)
    day = date.fromisoformat(f"{month}-01"[:10]) if isinstance(month, str) else month
    return day.replace(day=1)


class ImportSide(Portal):
    """Import of existing backend resources, as staff do it."""

    @change
    def request_import(
        self, tx: Transaction, offering: Offering | str | None = None
    ) -> BackendResourceRequest:
        """Ask agents which accounts of an offering's backend belong to no resource."""
        return tx.world.put(
            BackendResourceRequest(
                uuid=tx.new_uuid(),
                created=tx.now,
                modified=tx.now,
                offering=offering_or_first(tx, offering).uuid,
            )
        )

    def importable(self, offering: Offering | str | None = None) -> list[BackendResource]:
        """Return what agents found at an offering."""
        tx = self._store.read()
        place = offering_or_first(tx, offering)
        return [row for row in tx.world.backend_resources.values() if row.offering == place.uuid]

    @change
    def forget_importable(self, tx: Transaction, offering: Offering | str | None = None) -> None:
        """Remove what agents found at an offering, as an import by staff does."""
        place = offering_or_first(tx, offering)
        for row in list(tx.world.backend_resources.values()):
            if row.offering == place.uuid:
                tx.world.remove(row)

    def agent_states(self, offering: Offering | str | None = None) -> dict[str, str]:
        """Return the states of an offering's agent services by name, as the portal shows them."""
        tx = self._store.read()
        place = offering_or_first(tx, offering)
        identities = {
            row.uuid for row in tx.world.agent_identities.values() if row.offering == place.uuid
        }
        return {
            row.name: states.service_state(tx, row)
            for row in tx.world.agent_services.values()
            if row.identity in identities
        }


_OLD_ENOUGH = timedelta(hours=1)


class NudgeSide(Portal):
    """Events that staff or server tasks send without a change, so that agents check again."""

    def sync_user_roles(
        self, project: Project | str, resource: Resource | str | None = None
    ) -> None:
        """Ask agents to synchronize all members of a project or of one resource."""
        tx = self._store.read()
        found = find(tx, Project, project)
        payload: JsonObject = {"project_uuid": found.uuid, "project_name": found.name}
        if resource is None:
            offerings = events.offerings_of(tx, found.uuid)
        else:
            one = find(tx, Resource, resource)
            payload["resource_uuid"] = one.uuid
            offerings = [one.offering]
        for offering in offerings:
            self._store.announce(
                Occurrence(object_type="user_role", offering=offering, payload=payload), tx
            )

    def pull(self, resource: Resource | str) -> None:
        """Ask agents to synchronize a resource."""
        tx = self._store.read()
        found = find(tx, Resource, resource)
        self._store.announce(events.resource(tx, found), tx)

    def sync_resources(self, user: User | str, offering: Offering | str | None = None) -> None:
        """Ask agents to synchronize an offering's resources; refused if no agent is subscribed."""
        tx = self._store.read()
        place = offering_or_first(tx, offering)
        agents = {
            row.uuid for row in tx.world.agent_identities.values() if row.offering == place.uuid
        }
        if not any(row.identity in agents for row in tx.world.event_consumers.values()):
            raise RefusedError(HTTPStatus.CONFLICT, {"detail": "No agent is subscribed."})
        person = find(tx, User, user)
        what = Occurrence(
            object_type="offering_resources_sync",
            offering=place.uuid,
            payload={"requested_by_user_uuid": person.uuid},
        )
        self._store.announce(what, tx)

    def remind_of_orders(self) -> int:
        """Announce orders again that have been pending for over an hour; return their number."""
        tx = self._store.read()
        waiting = [
            order
            for order in tx.world.orders.values()
            if order.state == "pending-provider" and tx.now - order.created > _OLD_ENOUGH
        ]
        for number, order in enumerate(waiting, start=1):
            what = events.order(tx, order)
            payload: JsonObject = {**what.payload, "sequence_number": number}
            self._store.announce(replace(what, payload=payload), tx)
        return len(waiting)
