"""The whole content of a Waldur at one moment, and the questions that everybody asks of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TypeVar

from waldur_site_agent_sandbox.records import (
    AgentIdentity,
    AgentProcessor,
    AgentService,
    BackendResource,
    BackendResourceRequest,
    ComponentUsage,
    Customer,
    EventConsumer,
    EventSubscription,
    Offering,
    OfferingUser,
    Order,
    PeriodicPolicy,
    Project,
    ProjectAccount,
    Resource,
    Role,
    SubscriptionQueue,
    Task,
    User,
    UserLimit,
    UserUsage,
)

Record = (
    Customer
    | Project
    | User
    | Role
    | Offering
    | Resource
    | Order
    | OfferingUser
    | ProjectAccount
    | UserLimit
    | PeriodicPolicy
    | Task
    | ComponentUsage
    | UserUsage
    | AgentIdentity
    | AgentService
    | AgentProcessor
    | EventSubscription
    | SubscriptionQueue
    | EventConsumer
    | BackendResourceRequest
    | BackendResource
)

R = TypeVar("R", bound=Record)

_TABLES: dict[type, str] = {
    Customer: "customers",
    Project: "projects",
    User: "users",
    Role: "roles",
    Offering: "offerings",
    Resource: "resources",
    Order: "orders",
    OfferingUser: "offering_users",
    ProjectAccount: "project_accounts",
    UserLimit: "user_limits",
    PeriodicPolicy: "periodic_policies",
    Task: "tasks",
    ComponentUsage: "component_usages",
    UserUsage: "user_usages",
    AgentIdentity: "agent_identities",
    AgentService: "agent_services",
    AgentProcessor: "agent_processors",
    EventSubscription: "event_subscriptions",
    SubscriptionQueue: "subscription_queues",
    EventConsumer: "event_consumers",
    BackendResourceRequest: "backend_resource_requests",
    BackendResource: "backend_resources",
}

FINAL_ORDER_STATES = frozenset({"done", "erred", "canceled", "rejected"})


@dataclass(slots=True)
class World:
    """Tables of frozen records, by UUID. A world that was committed is never changed again."""

    customers: dict[str, Customer] = field(default_factory=dict)
    projects: dict[str, Project] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    offerings: dict[str, Offering] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    offering_users: dict[str, OfferingUser] = field(default_factory=dict)
    project_accounts: dict[str, ProjectAccount] = field(default_factory=dict)
    user_limits: dict[str, UserLimit] = field(default_factory=dict)
    periodic_policies: dict[str, PeriodicPolicy] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    component_usages: dict[str, ComponentUsage] = field(default_factory=dict)
    user_usages: dict[str, UserUsage] = field(default_factory=dict)
    agent_identities: dict[str, AgentIdentity] = field(default_factory=dict)
    agent_services: dict[str, AgentService] = field(default_factory=dict)
    agent_processors: dict[str, AgentProcessor] = field(default_factory=dict)
    event_subscriptions: dict[str, EventSubscription] = field(default_factory=dict)
    subscription_queues: dict[str, SubscriptionQueue] = field(default_factory=dict)
    event_consumers: dict[str, EventConsumer] = field(default_factory=dict)
    backend_resource_requests: dict[str, BackendResourceRequest] = field(default_factory=dict)
    backend_resources: dict[str, BackendResource] = field(default_factory=dict)

    def copy(self) -> World:
        """Give a world with tables of its own; the records are shared."""
        return World(**{table.name: dict(getattr(self, table.name)) for table in fields(self)})

    def put(self, record: Record) -> None:
        """Store a record, in place of the one with the same UUID."""
        getattr(self, _TABLES[type(record)])[record.uuid] = record

    def remove(self, record: Record) -> None:
        """Forget a record."""
        del getattr(self, _TABLES[type(record)])[record.uuid]

    def current(self, record: R) -> R:
        """Give the record as this world has it.

        Raises:
            KeyError: It is not there.
        """
        table: dict[str, R] = getattr(self, _TABLES[type(record)])
        return table[record.uuid]

    def active_roles(self, now: datetime) -> Iterator[Role]:
        """Roles of active users that have not expired."""
        for role in self.roles.values():
            expired = role.expiration_time is not None and role.expiration_time <= now
            if not expired and self.users[role.user].is_active:
                yield role

    def team(self, project: str, now: datetime) -> list[Role]:
        """Active roles in a project; owners of its organization are not among them."""
        return [
            role
            for role in self.active_roles(now)
            if role.scope_type == "project" and role.scope == project
        ]

    def orders_of(self, resource: str) -> list[Order]:
        """Orders for one resource, oldest first."""
        orders = (order for order in self.orders.values() if order.resource == resource)
        return sorted(orders, key=lambda order: order.created)

    def order_in_progress(self, resource: str) -> Order | None:
        """The order on a resource that has not reached a final state."""
        open_orders = (o for o in self.orders_of(resource) if o.state not in FINAL_ORDER_STATES)
        return next(open_orders, None)

    def offering_user(self, offering: str, user: str) -> OfferingUser | None:
        """A person's account name at an offering."""
        found = (
            account
            for account in self.offering_users.values()
            if account.offering == offering and account.user == user
        )
        return next(found, None)

    def user_limit(self, resource: str, account: str, component_type: str) -> UserLimit | None:
        """What one person may use of one component of a resource."""
        wanted = (resource, account, component_type)
        found = (
            limit
            for limit in self.user_limits.values()
            if (limit.resource, limit.account, limit.component_type) == wanted
        )
        return next(found, None)

    def policies_of(self, offering: str) -> list[PeriodicPolicy]:
        """The rules that set limits at an offering."""
        return [policy for policy in self.periodic_policies.values() if policy.offering == offering]

    def customer_of(self, project: str) -> Customer:
        """The organization that a project belongs to."""
        return self.customers[self.projects[project].customer]
