"""The records that Waldur stores, as frozen dataclasses.

UUIDs are 32 hex digits, as Waldur prints them; times are aware and in UTC. Mappings inside a record
are never changed in place: a change makes a new record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID, uuid5

from pydantic import JsonValue

JsonObject = dict[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """An organization: a customer, a service provider, or both."""

    uuid: str
    created: datetime
    name: str
    slug: str
    blocked: bool = False
    """A blocked organization's orders cannot be approved."""

    @property
    def service_provider(self) -> str:
        """The UUID of its record as a service provider, which is not its own."""
        return uuid5(UUID(self.uuid), "service provider").hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A group of people of one organization; resources belong to it."""

    uuid: str
    created: datetime
    name: str
    slug: str
    customer: str
    description: str = ""
    end_date: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person, or the agent's own account."""

    uuid: str
    created: datetime
    username: str
    full_name: str = ""
    email: str = ""
    token: str = field(default="", repr=False)
    token_lifetime: int | None = None
    """Seconds of silence after which the token expires; ``None``: never."""
    is_staff: bool = False
    is_active: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A user's role on a customer, a project or an offering."""

    uuid: str
    created: datetime
    user: str
    name: str
    """Such as ``PROJECT.ADMIN``, ``CUSTOMER.OWNER``, ``OFFERING.MANAGER``."""
    scope_type: str
    """``customer``, ``project`` or ``offering``."""
    scope: str
    expiration_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A component of an offering."""

    uuid: str
    type: str
    name: str
    billing_type: str
    measured_unit: str = ""
    description: str = ""
    unit_factor: int = 1
    limit_period: str | None = None
    limit_amount: float | None = None
    article_code: str = ""
    max_value: float | None = None
    min_value: float | None = None
    max_available_limit: float | None = None
    default_limit: float | None = None
    is_boolean: bool = False
    is_builtin: bool = False
    is_prepaid: bool = False
    min_prepaid_duration: int | None = None
    max_prepaid_duration: int | None = None
    prepaid_duration_step: int | None = None
    min_renewal_duration: int | None = None
    max_renewal_duration: int | None = None
    renewal_duration_step: int | None = None
    is_priced: bool = True
    """Whether the plan of the resources has a price for it."""

    @property
    def has_limits(self) -> bool:
        """Whether customers may set limits for it: limit-based ones, and prepaid ones."""
        return self.billing_type == "limit" or (self.billing_type == "one" and self.is_prepaid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition of the cluster that an offering sells."""

    uuid: str
    name: str
    qos: tuple[str, ...] = ()
    """Those that can be ordered in it; the first is the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan by which an offering is sold."""

    uuid: str
    name: str
    quotas: JsonObject = field(default_factory=dict)
    """By component, the amount that it includes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offering:
    """An offering of a service provider."""

    uuid: str
    created: datetime
    name: str
    slug: str
    customer: str
    type: str = "Marketplace.Slurm"
    state: str = "Active"
    shared: bool = True
    components: tuple[Component, ...] = ()
    plugin_options: JsonObject = field(default_factory=dict)
    partitions: tuple[Partition, ...] = ()
    qos_profiles: tuple[str, ...] = ()
    plans: tuple[Plan, ...] = ()
    has_terms: bool = True
    """Whether there are terms of service that people can consent to."""

    @property
    def limit_types(self) -> frozenset[str]:
        """Types of the components that a customer may set limits for."""
        return frozenset(c.type for c in self.components if c.has_limits)

    @property
    def prepaid(self) -> tuple[Component, ...]:
        """The components that are paid in advance, for a number of months."""
        return tuple(c for c in self.components if c.billing_type == "one" and c.is_prepaid)

    @property
    def unpriced_limit_types(self) -> frozenset[str]:
        """Those of them that the plan has no price for."""
        limited = (c for c in self.components if c.has_limits)
        return frozenset(c.type for c in limited if not c.is_priced)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource of a project."""

    uuid: str
    created: datetime
    modified: datetime
    name: str
    slug: str
    offering: str
    project: str
    state: str
    limits: JsonObject = field(default_factory=dict)
    attributes: JsonObject = field(default_factory=dict)
    options: JsonObject = field(default_factory=dict)
    """What the customer may change later, by an order with ``new_options``."""
    plan: str = ""
    end_date: date | None = None
    """The day on which Waldur orders the termination."""
    backend_id: str = ""
    backend_metadata: JsonObject = field(default_factory=dict)
    paused: bool = False
    downscaled: bool = False
    restrict_member_access: bool = False
    error_message: str = ""
    error_traceback: str = ""
    last_sync: datetime | None = None
    current_usages: JsonObject = field(default_factory=dict)
    """The usage that was reported last, as the portal shows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request to create, update or terminate a resource."""

    uuid: str
    created: datetime
    modified: datetime
    type: str
    state: str
    offering: str
    project: str
    resource: str
    limits: JsonObject = field(default_factory=dict)
    attributes: JsonObject = field(default_factory=dict)
    plan: str = ""
    extends_when: str = "done"
    """Of a renewal, when the new end date is set: servers do that when they process the order
    (``approved``), at its end (``done``), or leave it to people (``never``)."""
    start_date: date | None = None
    backend_id: str = ""
    error_message: str = ""
    error_traceback: str = ""
    provider_rejection_comment: str = ""
    fails_at_approval: str = ""
    """If set, the approval itself sets the order to erred with this message."""
    completed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferingUser:
    """A person's account name at one offering."""

    uuid: str
    created: datetime
    modified: datetime
    user: str
    offering: str
    username: str | None = ""
    state: str = "Requested"
    is_restricted: bool = False
    has_consent: bool = True
    """Whether the person has consented to the terms of service of the offering."""
    service_provider_comment: str = ""
    service_provider_comment_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectAccount:
    """An account that belongs to a project instead of a person."""

    uuid: str
    created: datetime
    modified: datetime
    kind: str
    """``service`` or ``course``."""
    project: str
    username: str | None = ""
    """``None`` for a course account that is pending."""
    state: str = "OK"
    email: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLimit:
    """A person's limit for one component of a resource."""

    uuid: str
    created: datetime
    resource: str
    account: str
    """The offering user."""
    component_type: str
    limit: str
    """A decimal number with two places, in the component's measured unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicPolicy:
    """A policy that sets the limits of an offering's resources each period."""

    uuid: str
    created: datetime
    offering: str
    period: int = 3
    """1 without end, 2 a month, 3 a quarter, 4 a year; ``limit_period`` of components wins."""
    limit_type: str = "GrpTRESMins"
    carryover_enabled: bool = True
    carryover_factor: int = 50
    """In percent of the limit."""
    grace_ratio: float = 0.2
    raw_usage_reset: bool = True
    tres_billing_enabled: bool = True
    tres_billing_weights: JsonObject = field(default_factory=dict)
    apply_to_all: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyMessage:
    """The settings that were last sent for a resource under a policy."""

    uuid: str
    created: datetime
    policy: str
    resource: str
    period: str
    settings: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult:
    """What an agent reported of applying a policy to a resource."""

    uuid: str
    created: datetime
    policy: str
    resource: str
    success: bool
    error_message: str = ""
    mode: str = "production"
    commands_executed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A background task of the server."""

    uuid: str
    created: datetime
    kind: str
    """``process_order`` or ``name_members``."""
    subject: str
    """Of ``process_order`` the order, of ``name_members`` the resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentIdentity:
    """An agent at one offering."""

    uuid: str
    created: datetime
    modified: datetime
    offering: str
    name: str
    created_by: str
    """The user who made it."""
    version: str | None = None
    dependencies: tuple[JsonValue, ...] = ()
    config_file_path: str | None = None
    config_file_content: str | None = field(default=None, repr=False)
    last_restarted: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLog:
    """A line of an agent's log."""

    uuid: str
    created: datetime
    identity: str
    timestamp: float
    level: str
    message: str
    module: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentService:
    """One job of an agent."""

    uuid: str
    created: datetime
    modified: datetime
    identity: str
    name: str
    registered: datetime
    """When it was registered last."""
    mode: str | None = None
    state: str = "Active"
    """As it was stored last: whether it has turned Idle since depends on the time."""
    statistics: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProcessor:
    """A processor of a service; its last run is the agent's heartbeat."""

    uuid: str
    created: datetime
    modified: datetime
    service: str
    name: str
    backend_type: str
    backend_version: str | None = None
    last_run: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSubscription:
    """A user's event subscription. Its UUID is the login at the broker."""

    uuid: str
    created: datetime
    modified: datetime
    user: str
    observable_objects: tuple[JsonValue, ...] = ()
    description: str = ""
    source_ip: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionQueue:
    """A queue that the server created for one kind of event at one offering."""

    uuid: str
    created: datetime
    subscription: str
    offering: str
    object_type: str

    @property
    def name(self) -> str:
        """The name of the queue at the broker."""
        return subscription_queue_name(self.subscription, self.offering, self.object_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventConsumer:
    """An agent's unified queue, for all kinds of events."""

    uuid: str
    created: datetime
    modified: datetime
    identity: str
    user: str
    login: str
    """At the broker."""
    object_types: tuple[str, ...] = ()
    """None at all means all of them."""

    @property
    def queue(self) -> str:
        """The name of the queue at the broker."""
        return f"consumer_{self.uuid}"


def subscription_queue_name(subscription: str, offering: str, object_type: str) -> str:
    """Name the queue of a subscription for one kind of change at one offering."""
    return f"subscription_{subscription}_offering_{offering}_{object_type}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResourceRequest:
    """A request for what could be imported from an offering's backend."""

    uuid: str
    created: datetime
    modified: datetime
    offering: str
    state: str = "Sent"
    """``Sent``, ``Processing``, ``Done`` or ``Erred``."""
    started: datetime | None = None
    finished: datetime | None = None
    error_message: str = ""
    error_traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResource:
    """An account of a backend that could become a resource."""

    uuid: str
    created: datetime
    modified: datetime
    name: str
    project: str
    offering: str
    backend_id: str = ""
    backend_metadata: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentUsage:
    """The usage of one component of a resource in a month, in the measured unit."""

    uuid: str
    created: datetime
    reported: datetime
    """When it was reported last, or the moment that the report named."""
    resource: str
    component_type: str
    billing_period: date
    """The first day of the month, in UTC."""
    usage: Decimal
    plan_period: str = ""
    """A resource whose plan changed has a row for each of its plans; empty is the present one."""
    description: str = ""
    recurring: bool = False
    modified_by: str = ""
    """The user who reported it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUsage:
    """One person's share of a component usage."""

    uuid: str
    created: datetime
    modified: datetime
    component_usage: str
    username: str
    """As the provider reports it; Waldur does not check it."""
    usage: Decimal
    account: str = ""
    """The offering user, where the first report named one."""
