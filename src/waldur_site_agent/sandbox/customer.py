"""The other side of the counter: what customers, their staff and administrators do in Waldur.

Nothing of this is Waldur's API. Methods take records or their UUIDs, slugs, usernames or names, and
give records; a record shows the moment it was made, ``current`` gives it as it is now.
"""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Literal

from waldur_site_agent.sandbox import offering_user_states, ordering
from waldur_site_agent.sandbox.customer_accounts import AccountSide
from waldur_site_agent.sandbox.customer_events import NudgeSide
from waldur_site_agent.sandbox.customer_imports import ImportSide
from waldur_site_agent.sandbox.customer_usage import UsageSide
from waldur_site_agent.sandbox.finding import find
from waldur_site_agent.sandbox.portal import offering_meant
from waldur_site_agent.sandbox.records import (
    Component,
    Customer,
    JsonObject,
    Offering,
    Order,
    Project,
    Resource,
    Role,
    User,
)
from waldur_site_agent.sandbox.slugs import new_slug
from waldur_site_agent.sandbox.store import Transaction

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
                    offering_user_states.name_members(tx, resource)
        return made

    def remove_member(self, project: Project | str, user: User | str) -> None:
        """End every role that a person has in a project."""
        with self._store.change() as tx:
            scope = find(tx.world.projects, project, "projects")
            person = find(tx.world.users, user, "users")
            for role in list(tx.world.roles.values()):
                if role.user == person.uuid and role.scope == scope.uuid:
                    tx.world.remove(role)
            offering_user_states.let_go(tx, person.uuid)

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
            offering_user_states.let_go(tx, ended.user)

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
            return ordering.place_create(
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
            return ordering.place_update(
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
            return ordering.place_terminate(tx, found, attributes=attributes or {}, state=state)

    def approve_as_consumer(self, order: Order | str) -> Order:
        """Pass an order in pending-consumer on to the provider."""
        with self._store.change() as tx:
            return ordering.approve_as_consumer(tx, find(tx.world.orders, order, "orders"))

    def withdraw_order(self, order: Order | str) -> None:
        """Delete an order before anybody works on it."""
        with self._store.change() as tx:
            ordering.withdraw(tx, find(tx.world.orders, order, "orders"))

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
