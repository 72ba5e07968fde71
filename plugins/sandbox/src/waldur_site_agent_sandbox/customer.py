"""What customers, their staff and administrators do in Waldur's portal.

None of this is Waldur's API. Methods take records or their UUIDs, slugs, usernames or names, and
return records; a record shows the moment it was made, ``current`` gives it as it is now.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Literal

from waldur_site_agent_sandbox import rules, states
from waldur_site_agent_sandbox.http import invalid
from waldur_site_agent_sandbox.portal import (
    AccountSide,
    ImportSide,
    NudgeSide,
    UsageSide,
    change,
    find,
    offering_or_first,
)
from waldur_site_agent_sandbox.records import (
    Component,
    Customer,
    JsonObject,
    Offering,
    Order,
    Partition,
    Plan,
    Project,
    Resource,
    Role,
    User,
)
from waldur_site_agent_sandbox.states import new_slug
from waldur_site_agent_sandbox.store import Transaction

_LONG_ROLES = {
    "admin": "PROJECT.ADMIN",
    "manager": "PROJECT.MANAGER",
    "member": "PROJECT.MEMBER",
}


class CustomerSide(AccountSide, UsageSide, ImportSide, NudgeSide):
    """What people do in Waldur's portal; raises ``RefusedError`` where the portal would refuse."""

    # Organizations, projects and people

    @change
    def add_customer(self, tx: Transaction, name: str, slug: str | None = None) -> Customer:
        """Create an organization; Waldur generates its slug unless one is given."""
        return tx.world.put(
            Customer(
                uuid=tx.new_uuid(),
                created=tx.now,
                name=name,
                slug=_slug(name, tx.world.customers) if slug is None else slug,
            )
        )

    @change
    def add_project(
        self,
        tx: Transaction,
        name: str,
        customer: Customer | str,
        slug: str | None = None,
        description: str = "",
        end_date: date | None = None,
    ) -> Project:
        """Create a project of an organization; Waldur generates its slug unless one is given."""
        return tx.world.put(
            Project(
                uuid=tx.new_uuid(),
                created=tx.now,
                name=name,
                slug=_slug(name, tx.world.projects) if slug is None else slug,
                customer=find(tx, Customer, customer).uuid,
                description=description,
                end_date=end_date,
            )
        )

    @change
    def move_project(
        self, tx: Transaction, project: Project | str, customer: Customer | str
    ) -> Project:
        """Move a project, with its resources and its team, to another organization."""
        moved = replace(find(tx, Project, project), customer=find(tx, Customer, customer).uuid)
        return tx.world.put(moved)

    @change
    def add_user(
        self,
        tx: Transaction,
        username: str,
        full_name: str = "",
        email: str = "",
        token_lifetime: int | None = None,
        is_staff: bool = False,
    ) -> User:
        """Create a user with an API token."""
        return tx.world.put(
            User(
                uuid=tx.new_uuid(),
                created=tx.now,
                username=username,
                full_name=full_name,
                email=email,
                token=secrets.token_hex(20),
                token_lifetime=token_lifetime,
                is_staff=is_staff,
            )
        )

    @change
    def add_member(
        self,
        tx: Transaction,
        project: Project | str,
        user: User | str,
        role: Literal["admin", "manager", "member"] = "member",
        expiration_time: datetime | None = None,
    ) -> Role:
        """Add a member to a project."""
        scope = find(tx, Project, project)
        made = _new_role(tx, user, _LONG_ROLES[role], "project", scope.uuid)
        made = replace(made, expiration_time=expiration_time)
        tx.world.put(made)
        for resource in list(tx.world.resources.values()):
            if resource.project == scope.uuid and resource.state != "Terminated":
                states.name_members(tx, resource)
        return made

    @change
    def remove_member(self, tx: Transaction, project: Project | str, user: User | str) -> None:
        """Remove all roles of a person in a project."""
        scope = find(tx, Project, project)
        person = find(tx, User, user)
        for role in list(tx.world.roles.values()):
            if role.user == person.uuid and role.scope == scope.uuid:
                tx.world.remove(role)
        states.request_unneeded_deletions(tx, person.uuid)

    @change
    def add_customer_role(
        self,
        tx: Transaction,
        customer: Customer | str,
        user: User | str,
        role: str = "CUSTOMER.OWNER",
    ) -> Role:
        """Return a person a role in an organization."""
        scope = find(tx, Customer, customer)
        return tx.world.put(_new_role(tx, user, role, "customer", scope.uuid))

    @change
    def add_offering_role(
        self,
        tx: Transaction,
        offering: Offering | str,
        user: User | str,
        role: str = "OFFERING.MANAGER",
    ) -> Role:
        """Return a person a role on an offering alone."""
        scope = find(tx, Offering, offering)
        return tx.world.put(_new_role(tx, user, role, "offering", scope.uuid))

    @change
    def end_role(self, tx: Transaction, role: Role | str) -> None:
        """End one role."""
        ended = find(tx, Role, role)
        tx.world.remove(ended)
        states.request_unneeded_deletions(tx, ended.user)

    def expire_token(self, user: User | str) -> None:
        """Expire a user's token: requests with it get 401."""
        self._sessions.expire(find(self._store.read(), User, user))

    @change
    def renew_token(self, tx: Transaction, user: User | str) -> User:
        """Replace a user's token; the old one becomes invalid."""
        person = find(tx, User, user)
        renewed = replace(person, token=secrets.token_hex(20))
        tx.world.put(renewed)
        self._sessions.renew(renewed)
        return renewed

    # Offerings

    @change
    def add_offering(
        self,
        tx: Transaction,
        name: str,
        provider: Customer | str,
        components: tuple[Component, ...] = (),
        plugin_options: JsonObject | None = None,
        type: str = "Marketplace.Slurm",  # noqa: A002  # Waldur's word
    ) -> Offering:
        """Create an offering."""
        options: JsonObject = {
            "service_provider_can_create_offering_user": True,
            "username_generation_policy": "service_provider",
            "can_restore_resource": True,
        }
        return tx.world.put(
            Offering(
                uuid=tx.new_uuid(),
                created=tx.now,
                name=name,
                slug=_slug(name, tx.world.offerings),
                customer=find(tx, Customer, provider).uuid,
                type=type,
                components=components,
                plugin_options=options | (plugin_options or {}),
            )
        )

    @change
    def set_partitions(
        self,
        tx: Transaction,
        partitions: Mapping[str, tuple[str, ...]],
        profiles: tuple[str, ...] = (),
        plugin_options: JsonObject | None = None,
        offering: Offering | str | None = None,
    ) -> Offering:
        """Set the partitions of an offering, each with the QOS that can be ordered in it.

        ``profiles`` are the QOS of the offering as a whole.
        """
        place = offering_or_first(tx, offering)
        made = tuple(
            Partition(uuid=tx.new_uuid(), name=name, qos=qos) for name, qos in partitions.items()
        )
        options = place.plugin_options | (plugin_options or {})
        return tx.world.put(
            replace(place, partitions=made, qos_profiles=profiles, plugin_options=options)
        )

    @change
    def set_terms(
        self, tx: Transaction, *, has_terms: bool, offering: Offering | str | None = None
    ) -> Offering:
        """Publish the terms of service of an offering, or withdraw them."""
        return tx.world.put(replace(offering_or_first(tx, offering), has_terms=has_terms))

    @change
    def add_component(
        self,
        tx: Transaction,
        type: str,  # noqa: A002  # Waldur's word
        billing_type: Literal["limit", "usage", "fixed", "one", "few"] = "limit",
        measured_unit: str = "",
        offering: Offering | str | None = None,
        name: str | None = None,
        unit_factor: int = 1,
        is_priced: bool = True,
        *,
        is_prepaid: bool = False,
    ) -> Component:
        """Add a component to an offering; without a price, the plan does not have it yet.

        ``one`` with ``is_prepaid`` is paid in advance, for a number of months.
        """
        place = offering_or_first(tx, offering)
        component = Component(
            uuid=tx.new_uuid(),
            type=type,
            name=name or type,
            billing_type=billing_type,
            measured_unit=measured_unit,
            unit_factor=unit_factor,
            is_priced=is_priced,
            is_prepaid=is_prepaid,
        )
        tx.world.put(replace(place, components=(*place.components, component)))
        return component

    @change
    def add_plan(
        self,
        tx: Transaction,
        name: str,
        quotas: JsonObject,
        offering: Offering | str | None = None,
    ) -> Plan:
        """Add a plan to an offering, with what it includes of each component."""
        place = offering_or_first(tx, offering)
        plan = Plan(uuid=tx.new_uuid(), name=name, quotas=quotas)
        tx.world.put(replace(place, plans=(*place.plans, plan)))
        return plan

    # Orders and resources

    @change
    def place_create_order(
        self,
        tx: Transaction,
        project: Project | str,
        name: str,
        limits: JsonObject | None = None,
        attributes: JsonObject | None = None,
        start_date: date | None = None,
        offering: Offering | str | None = None,
        state: str = "pending-provider",
        *,
        end_date: date | None = None,
        plan: Plan | str | None = None,
    ) -> Order:
        """Order a resource for a project; prepaid ones need an end date."""
        return rules.place_create(
            tx,
            offering_or_first(tx, offering),
            find(tx, Project, project),
            name,
            limits=limits or {},
            attributes=attributes or {},
            start_date=start_date,
            end_date=end_date,
            plan=_plan(tx, plan),
            state=state,
        )

    @change
    def place_renewal_order(
        self,
        tx: Transaction,
        resource: Resource | str,
        months: int,
        limits: JsonObject | None = None,
        extends_when: Literal["approved", "done", "never"] = "done",
        state: str = "pending-provider",
    ) -> Order:
        """Order further months of a prepaid resource.

        ``extends_when`` is when the server sets the new end date.
        """
        found = find(tx, Resource, resource)
        return rules.place_renewal(
            tx, found, months, limits, state=state, extends_when=extends_when
        )

    @change
    def end_expired(self, tx: Transaction) -> list[Order]:
        """Do the server's daily task: order the end of the resources whose day has come."""
        return rules.end_expired(tx)

    @change
    def place_update_order(
        self,
        tx: Transaction,
        resource: Resource | str,
        limits: JsonObject | None = None,
        attributes: JsonObject | None = None,
        start_date: date | None = None,
        plan: Plan | str | None = None,
        state: str = "pending-provider",
    ) -> Order:
        """Order new limits or another plan for a resource, or ``new_options`` by an attribute."""
        return rules.place_update(
            tx,
            find(tx, Resource, resource),
            limits or {},
            attributes=attributes or {},
            start_date=start_date,
            plan=_plan(tx, plan),
            state=state,
        )

    @change
    def place_terminate_order(
        self,
        tx: Transaction,
        resource: Resource | str,
        attributes: JsonObject | None = None,
        state: str = "pending-provider",
    ) -> Order:
        """Order the termination of a resource."""
        found = find(tx, Resource, resource)
        return rules.place_terminate(tx, found, attributes=attributes or {}, state=state)

    @change
    def place_restore_order(
        self, tx: Transaction, resource: Resource | str, state: str = "pending-provider"
    ) -> Order:
        """Order a terminated resource back."""
        return rules.place_restore(tx, find(tx, Resource, resource), state=state)

    @change
    def approve_as_consumer(self, tx: Transaction, order: Order | str) -> Order:
        """Approve an order in pending-consumer, which passes it on to the provider."""
        return rules.approve_as_consumer(tx, find(tx, Order, order))

    @change
    def withdraw_order(self, tx: Transaction, order: Order | str) -> None:
        """Delete an order that is still pending."""
        rules.withdraw(tx, find(tx, Order, order))

    def resource_of(self, order: Order | str) -> Resource:
        """Return the current state of the resource that an order is for."""
        tx = self._store.read()
        return tx.world.resources[find(tx, Order, order).resource]

    @change
    def set_flags(
        self,
        tx: Transaction,
        resource: Resource | str,
        paused: bool | None = None,
        downscaled: bool | None = None,
        restrict_member_access: bool | None = None,
    ) -> Resource:
        """Pause or downscale a resource, or restrict access to it; other flags stay as they are."""
        wanted = {
            "paused": paused,
            "downscaled": downscaled,
            "restrict_member_access": restrict_member_access,
        }
        flags = {name: value for name, value in wanted.items() if value is not None}
        found = find(tx, Resource, resource)
        return tx.world.put(replace(found, modified=tx.now, **flags))  # type: ignore[arg-type]  # all are flags


def _slug(name: str, others: Mapping[str, Customer | Project | Offering]) -> str:
    return new_slug(name, (other.slug for other in others.values()))


def _plan(tx: Transaction, plan: Plan | str | None) -> str:
    """Return the UUID of a plan, which may be given by its UUID or name.

    Raises:
        RefusedError: 400 where no offering has it.
    """
    wanted = plan.uuid if isinstance(plan, Plan) else plan
    if not wanted:
        return ""
    for offering in tx.world.offerings.values():
        for each in offering.plans:
            if wanted in {each.uuid, each.name}:
                return each.uuid
    raise invalid({"plan": [f"No offering has the plan {wanted}."]})


def _new_role(tx: Transaction, user: User | str, name: str, kind: str, scope: str) -> Role:
    person = find(tx, User, user)
    return Role(
        uuid=tx.new_uuid(),
        created=tx.now,
        user=person.uuid,
        name=name,
        scope_type=kind,
        scope=scope,
    )
