"""What a Waldur stores, as frozen values.

UUIDs are 32 hex digits, as Waldur prints them; times are aware and in UTC. Mappings inside a record
are never changed in place: a change makes a new record.
"""

from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID, uuid5

from pydantic import JsonValue

JsonObject = dict[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """An organization: it buys, or it sells, or both."""

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
    """A thing that an offering counts."""

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
    is_priced: bool = True
    """Whether the plan of the resources has a price for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offering:
    """What a provider sells."""

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

    @property
    def limit_types(self) -> frozenset[str]:
        """Types of the components that a customer may set limits for."""
        return frozenset(c.type for c in self.components if c.billing_type == "limit")

    @property
    def unpriced_limit_types(self) -> frozenset[str]:
        """Those of them that the plan has no price for."""
        limited = (c for c in self.components if c.billing_type == "limit")
        return frozenset(c.type for c in limited if not c.is_priced)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What a project bought."""

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
    backend_id: str = ""
    backend_metadata: JsonObject = field(default_factory=dict)
    paused: bool = False
    downscaled: bool = False
    restrict_member_access: bool = False
    error_message: str = ""
    error_traceback: str = ""
    last_sync: datetime | None = None
    current_usages: JsonObject = field(default_factory=dict)
    """What was reported last, as the portal shows it."""


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
    start_date: date | None = None
    backend_id: str = ""
    error_message: str = ""
    error_traceback: str = ""
    provider_rejection_comment: str = ""
    fails_at_approval: str = ""
    """With these words the server errs it within the approval, as it may an update."""
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
    """The most that one person may use of one component of a resource."""

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
    """A rule that sets the limits of an offering's resources anew each period."""

    uuid: str
    created: datetime
    offering: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Work that the server has put off and does by itself a little later."""

    uuid: str
    created: datetime
    kind: str
    """``process_order`` or ``name_members``."""
    subject: str
    """Of ``process_order`` the order, of ``name_members`` the resource."""
