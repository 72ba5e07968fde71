"""The other side of the counter: what customers, their staff and administrators do in Waldur.

Nothing of this is Waldur's API. Methods take records or their UUIDs, slugs, usernames or names, and
give records; a record shows the moment it was made, ``current`` gives it as it is now.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Literal

from waldur_site_agent_sandbox import agents, events, rules, states
from waldur_site_agent_sandbox.http import RefusedError, invalid
from waldur_site_agent_sandbox.occurrences import Occurrence
from waldur_site_agent_sandbox.portal import Portal, find, offering_meant
from waldur_site_agent_sandbox.records import (
    BackendResource,
    BackendResourceRequest,
    Component,
    ComponentUsage,
    Customer,
    JsonObject,
    Offering,
    OfferingUser,
    Order,
    PeriodicPolicy,
    Project,
    ProjectAccount,
    Resource,
    Role,
    User,
    UserLimit,
    UserUsage,
)
from waldur_site_agent_sandbox.states import new_slug
from waldur_site_agent_sandbox.store import Transaction


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
            transition = states.TRANSITIONS["request_deletion"]
            states.move(tx, account, transition, "", "")
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


class UsageSide(Portal):
    """Months are named by any of their days, or as ``2026-11``; none means the present one."""

    def usage_rows(
        self, resource: Resource | str, month: date | str | None = None
    ) -> list[ComponentUsage]:
        """Give the rows of a month as they are stored, oldest first."""
        tx = self._store.read()
        found = find(tx.world.resources, resource, "resources")
        first = _first_day(tx, month)
        rows = tx.world.component_usages.values()
        return [row for row in rows if (row.resource, row.billing_period) == (found.uuid, first)]

    def usages(
        self, resource: Resource | str, month: date | str | None = None
    ) -> dict[str, Decimal]:
        """Give what a customer pays for in a month, by component: the sum over all plans."""
        total: dict[str, Decimal] = defaultdict(Decimal)
        for row in self.usage_rows(resource, month):
            total[row.component_type] += row.usage
        return dict(total)

    def user_usages(
        self, resource: Resource | str, month: date | str | None = None
    ) -> dict[str, dict[str, Decimal]]:
        """Give what each person used in a month: username, then component."""
        used: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
        for parent in self.usage_rows(resource, month):
            for row in rules.user_rows(self._store.read(), parent):
                used[row.username][parent.component_type] += row.usage
        return {username: dict(amounts) for username, amounts in used.items()}

    def put_usage(
        self,
        resource: Resource | str,
        component_type: str,
        usage: Decimal | float | str,
        month: date | str | None = None,
        plan_period: str = "",
    ) -> ComponentUsage:
        """Store a usage as only an administrator of the database can, in any month.

        With a ``plan_period`` of its own, it is a second row beside the one that reports change.
        """
        with self._store.change() as tx:
            found = find(tx.world.resources, resource, "resources")
            first = _first_day(tx, month)
            before = rules.row_of(tx, found.uuid, component_type, first, plan_period)
            row = ComponentUsage(
                uuid=before.uuid if before else tx.new_uuid(),
                created=before.created if before else tx.now,
                reported=tx.now,
                resource=found.uuid,
                component_type=component_type,
                billing_period=first,
                usage=Decimal(str(usage)),
                plan_period=plan_period,
            )
            tx.world.put(row)
        return row

    def put_user_usage(
        self,
        parent: ComponentUsage | str,
        username: str,
        usage: Decimal | float | str,
    ) -> UserUsage:
        """Store one person's part of a usage, as only an administrator of the database can."""
        with self._store.change() as tx:
            row = UserUsage(
                uuid=tx.new_uuid(),
                created=tx.now,
                modified=tx.now,
                component_usage=find(tx.world.component_usages, parent, "usages").uuid,
                username=username,
                usage=Decimal(str(usage)),
            )
            tx.world.put(row)
        return row


def _first_day(tx: Transaction, month: date | str | None) -> date:
    if month is None:
        return rules.month_of(tx.now)
    day = date.fromisoformat(f"{month}-01"[:10]) if isinstance(month, str) else month
    return day.replace(day=1)


class ImportSide(Portal):
    """What staff do to bring into Waldur what is in a backend."""

    def request_import(self, offering: Offering | str | None = None) -> BackendResourceRequest:
        """Ask what an offering's backend has that no resource claims."""
        with self._store.change() as tx:
            request = BackendResourceRequest(
                uuid=tx.new_uuid(),
                created=tx.now,
                modified=tx.now,
                offering=offering_meant(tx, offering).uuid,
            )
            tx.world.put(request)
        return request

    def importable(self, offering: Offering | str | None = None) -> list[BackendResource]:
        """Give what agents found at an offering."""
        tx = self._store.read()
        place = offering_meant(tx, offering)
        return [row for row in tx.world.backend_resources.values() if row.offering == place.uuid]

    def forget_importable(self, offering: Offering | str | None = None) -> None:
        """Remove what agents found at an offering, as an import by staff does."""
        with self._store.change() as tx:
            place = offering_meant(tx, offering)
            for row in list(tx.world.backend_resources.values()):
                if row.offering == place.uuid:
                    tx.world.remove(row)

    def agent_states(self, offering: Offering | str | None = None) -> dict[str, str]:
        """Give the states of the services of an offering's agents, by name, as the portal shows."""
        tx = self._store.read()
        place = offering_meant(tx, offering)
        identities = {
            row.uuid for row in tx.world.agent_identities.values() if row.offering == place.uuid
        }
        return {
            row.name: agents.state_of(tx, row)
            for row in tx.world.agent_services.values()
            if row.identity in identities
        }


_OLD_ENOUGH = timedelta(hours=1)


class NudgeSide(Portal):
    """What staff and tasks of the server do to have agents look again."""

    def sync_user_roles(
        self, project: Project | str, resource: Resource | str | None = None
    ) -> None:
        """Ask agents to compare everybody in a project, or in one of its resources."""
        tx = self._store.read()
        found = find(tx.world.projects, project, "projects")
        payload: JsonObject = {"project_uuid": found.uuid, "project_name": found.name}
        if resource is None:
            offerings = events.offerings_of(tx, found.uuid)
        else:
            one = find(tx.world.resources, resource, "resources")
            payload["resource_uuid"] = one.uuid
            offerings = [one.offering]
        for offering in offerings:
            self._store.announce(
                Occurrence(object_type="user_role", offering=offering, payload=payload), tx
            )

    def pull(self, resource: Resource | str) -> None:
        """Ask agents to look at a resource."""
        tx = self._store.read()
        found = find(tx.world.resources, resource, "resources")
        self._store.announce(events.resource(tx, found), tx)

    def sync_resources(self, user: User | str, offering: Offering | str | None = None) -> None:
        """Ask agents to look at all resources of an offering; without any agent that is refused."""
        tx = self._store.read()
        place = offering_meant(tx, offering)
        agents = {
            row.uuid for row in tx.world.agent_identities.values() if row.offering == place.uuid
        }
        if not any(row.identity in agents for row in tx.world.event_consumers.values()):
            raise RefusedError(HTTPStatus.CONFLICT, {"detail": "No agent is subscribed."})
        person = find(tx.world.users, user, "users")
        what = Occurrence(
            object_type="offering_resources_sync",
            offering=place.uuid,
            payload={"requested_by_user_uuid": person.uuid},
        )
        self._store.announce(what, tx)

    def remind_of_orders(self) -> int:
        """Tell again of orders that wait for the provider for more than an hour; gives how many."""
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


_LONG_ROLES = {
    "admin": "PROJECT.ADMIN",
    "manager": "PROJECT.MANAGER",
    "member": "PROJECT.MEMBER",
}


class CustomerSide(AccountSide, UsageSide, ImportSide, NudgeSide):
    """What people do in Waldur's portal; raises ``RefusedError`` where the portal would say no."""

    # Organizations, projects and people

    def add_customer(self, name: str, slug: str | None = None) -> Customer:
        """Make an organization; its slug is Waldur's, unless an administrator chooses one."""
        with self._store.change() as tx:
            customer = Customer(
                uuid=tx.new_uuid(),
                created=tx.now,
                name=name,
                slug=_slug(name, tx.world.customers) if slug is None else slug,
            )
            tx.world.put(customer)
        return customer

    def add_project(
        self,
        name: str,
        customer: Customer | str,
        slug: str | None = None,
        description: str = "",
        end_date: date | None = None,
    ) -> Project:
        """Make a project of an organization; of its slug see ``add_customer``."""
        with self._store.change() as tx:
            project = Project(
                uuid=tx.new_uuid(),
                created=tx.now,
                name=name,
                slug=_slug(name, tx.world.projects) if slug is None else slug,
                customer=find(tx.world.customers, customer, "customers").uuid,
                description=description,
                end_date=end_date,
            )
            tx.world.put(project)
        return project

    def add_user(
        self,
        username: str,
        full_name: str = "",
        email: str = "",
        token_lifetime: int | None = None,
        is_staff: bool = False,
    ) -> User:
        """Make a person, with a token of its own."""
        with self._store.change() as tx:
            user = User(
                uuid=tx.new_uuid(),
                created=tx.now,
                username=username,
                full_name=full_name,
                email=email,
                token=secrets.token_hex(20),
                token_lifetime=token_lifetime,
                is_staff=is_staff,
            )
            tx.world.put(user)
        return user

    def add_member(
        self,
        project: Project | str,
        user: User | str,
        role: Literal["admin", "manager", "member"] = "member",
        expiration_time: datetime | None = None,
    ) -> Role:
        """Let a person into a project."""
        with self._store.change() as tx:
            scope = find(tx.world.projects, project, "projects")
            made = _new_role(tx, user, _LONG_ROLES[role], "project", scope.uuid)
            made = replace(made, expiration_time=expiration_time)
            tx.world.put(made)
            for resource in list(tx.world.resources.values()):
                if resource.project == scope.uuid and resource.state != "Terminated":
                    states.name_members(tx, resource)
        return made

    def remove_member(self, project: Project | str, user: User | str) -> None:
        """End every role that a person has in a project."""
        with self._store.change() as tx:
            scope = find(tx.world.projects, project, "projects")
            person = find(tx.world.users, user, "users")
            for role in list(tx.world.roles.values()):
                if role.user == person.uuid and role.scope == scope.uuid:
                    tx.world.remove(role)
            states.let_go(tx, person.uuid)

    def add_customer_role(
        self, customer: Customer | str, user: User | str, role: str = "CUSTOMER.OWNER"
    ) -> Role:
        """Give a person a role in an organization."""
        with self._store.change() as tx:
            scope = find(tx.world.customers, customer, "customers")
            made = _new_role(tx, user, role, "customer", scope.uuid)
            tx.world.put(made)
        return made

    def add_offering_role(
        self, offering: Offering | str, user: User | str, role: str = "OFFERING.MANAGER"
    ) -> Role:
        """Give a person a role on an offering alone."""
        with self._store.change() as tx:
            scope = find(tx.world.offerings, offering, "offerings")
            made = _new_role(tx, user, role, "offering", scope.uuid)
            tx.world.put(made)
        return made

    def end_role(self, role: Role | str) -> None:
        """End one role."""
        with self._store.change() as tx:
            ended = find(tx.world.roles, role, "roles")
            tx.world.remove(ended)
            states.let_go(tx, ended.user)

    def expire_token(self, user: User | str) -> None:
        """Let a token be too old from now on; requests with it get 401."""
        self._sessions.expire(find(self.world.users, user, "users"))

    def renew_token(self, user: User | str) -> User:
        """Give a user a new token; the old one is worth nothing any more."""
        with self._store.change() as tx:
            person = find(tx.world.users, user, "users")
            renewed = replace(person, token=secrets.token_hex(20))
            tx.world.put(renewed)
        self._sessions.renew(renewed)
        return renewed

    # What is sold

    def add_offering(
        self,
        name: str,
        provider: Customer | str,
        components: tuple[Component, ...] = (),
        plugin_options: JsonObject | None = None,
        type: str = "Marketplace.Slurm",  # noqa: A002  # Waldur's word
    ) -> Offering:
        """Put something up for sale."""
        with self._store.change() as tx:
            options: JsonObject = {
                "service_provider_can_create_offering_user": True,
                "username_generation_policy": "service_provider",
            }
            offering = Offering(
                uuid=tx.new_uuid(),
                created=tx.now,
                name=name,
                slug=_slug(name, tx.world.offerings),
                customer=find(tx.world.customers, provider, "customers").uuid,
                type=type,
                components=components,
                plugin_options=options | (plugin_options or {}),
            )
            tx.world.put(offering)
        return offering

    def add_component(
        self,
        type: str,  # noqa: A002  # Waldur's word
        billing_type: Literal["limit", "usage", "fixed", "one", "few"] = "limit",
        measured_unit: str = "",
        offering: Offering | str | None = None,
        name: str | None = None,
        unit_factor: int = 1,
        is_priced: bool = True,
    ) -> Component:
        """Let an offering count one more thing; the plan may have no price for it yet."""
        with self._store.change() as tx:
            place = offering_meant(tx, offering)
            component = Component(
                uuid=tx.new_uuid(),
                type=type,
                name=name or type,
                billing_type=billing_type,
                measured_unit=measured_unit,
                unit_factor=unit_factor,
                is_priced=is_priced,
            )
            tx.world.put(replace(place, components=(*place.components, component)))
        return component

    # Orders and resources

    def place_create_order(
        self,
        project: Project | str,
        name: str,
        limits: JsonObject | None = None,
        attributes: JsonObject | None = None,
        start_date: date | None = None,
        offering: Offering | str | None = None,
        state: str = "pending-provider",
    ) -> Order:
        """Order a resource for a project."""
        with self._store.change() as tx:
            return rules.place_create(
                tx,
                offering_meant(tx, offering),
                find(tx.world.projects, project, "projects"),
                name,
                limits=limits or {},
                attributes=attributes or {},
                start_date=start_date,
                state=state,
            )

    def place_update_order(
        self,
        resource: Resource | str,
        limits: JsonObject | None = None,
        attributes: JsonObject | None = None,
        start_date: date | None = None,
        state: str = "pending-provider",
    ) -> Order:
        """Order other limits for a resource."""
        with self._store.change() as tx:
            return rules.place_update(
                tx,
                find(tx.world.resources, resource, "resources"),
                limits or {},
                attributes=attributes or {},
                start_date=start_date,
                state=state,
            )

    def place_terminate_order(
        self,
        resource: Resource | str,
        attributes: JsonObject | None = None,
        state: str = "pending-provider",
    ) -> Order:
        """Order the end of a resource."""
        with self._store.change() as tx:
            found = find(tx.world.resources, resource, "resources")
            return rules.place_terminate(tx, found, attributes=attributes or {}, state=state)

    def approve_as_consumer(self, order: Order | str) -> Order:
        """Pass an order in pending-consumer on to the provider."""
        with self._store.change() as tx:
            return rules.approve_as_consumer(tx, find(tx.world.orders, order, "orders"))

    def withdraw_order(self, order: Order | str) -> None:
        """Delete an order before anybody works on it."""
        with self._store.change() as tx:
            rules.withdraw(tx, find(tx.world.orders, order, "orders"))

    def resource_of(self, order: Order | str) -> Resource:
        """Give the resource that an order is about, as it is now."""
        world = self.world
        return world.resources[find(world.orders, order, "orders").resource]

    def set_flags(
        self,
        resource: Resource | str,
        paused: bool | None = None,
        downscaled: bool | None = None,
        restrict_member_access: bool | None = None,
    ) -> Resource:
        """Pause or downscale a resource, keep its members out; flags not named stay."""
        wanted = {
            "paused": paused,
            "downscaled": downscaled,
            "restrict_member_access": restrict_member_access,
        }
        flags = {name: value for name, value in wanted.items() if value is not None}
        with self._store.change() as tx:
            found = find(tx.world.resources, resource, "resources")
            changed = replace(found, modified=tx.now, **flags)  # type: ignore[arg-type]  # all are flags
            tx.world.put(changed)
        return changed


def _slug(name: str, others: Mapping[str, Customer | Project | Offering]) -> str:
    return new_slug(name, (other.slug for other in others.values()))


def _new_role(tx: Transaction, user: User | str, name: str, kind: str, scope: str) -> Role:
    person = find(tx.world.users, user, "users")
    return Role(
        uuid=tx.new_uuid(),
        created=tx.now,
        user=person.uuid,
        name=name,
        scope_type=kind,
        scope=scope,
    )
