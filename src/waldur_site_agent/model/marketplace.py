"""Marketplace objects as Waldur describes them. Times are aware datetimes as the server sent them.

Field names are the API's own, so that an answer can be compared with the documentation; the few
that differ carry the API's name as an alias. States and types are plain text: a server newer than
this agent may use values that are not listed here.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticKnownError


def uuid_from_url(url: str) -> UUID | None:
    """The UUID that a URL ends in, or the text itself is; ``None`` if there is none."""
    try:
        return UUID(url.partition("?")[0].rstrip("/").rpartition("/")[2])
    except ValueError:
        return None


def _read(value: object) -> UUID | None:
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    return uuid_from_url(value)


UuidFromUrl: TypeAlias = Annotated[UUID | None, BeforeValidator(_read)]
"""A UUID that the API gives as a URL or as text; ``None`` where the text holds no UUID."""


SharedText: TypeAlias = Annotated[str, AfterValidator(sys.intern)]
"""A text that many objects have in common, kept in memory once."""


def aware(moment: datetime) -> datetime:
    """A moment with its time zone, which is UTC where none is said."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _with_shared_zone(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.utcoffset() == _NO_OFFSET else moment


_NO_OFFSET = timedelta(0)
Moment: TypeAlias = Annotated[datetime, AfterValidator(_with_shared_zone)]
"""A time as the server sent it; those in UTC share one time zone object."""


class OrderState:
    """The order states that the agent acts on; there are others."""

    PENDING_PROVIDER = "pending-provider"
    REJECTED = "rejected"
    PENDING_START_DATE = "pending-start-date"
    EXECUTING = "executing"
    DONE = "done"
    ERRED = "erred"


class OrderType:
    """The kinds of order that the agent carries out; newer servers know others."""

    CREATE = "Create"
    UPDATE = "Update"
    TERMINATE = "Terminate"
    RESTORE = "Restore"
    """A terminated resource is wanted again, under its old name."""

    OPENING = (CREATE, RESTORE)
    """Those after which the resource has an account with members."""


class ResourceState:
    """The states of a marketplace resource."""

    CREATING = "Creating"
    OK = "OK"
    ERRED = "Erred"
    UPDATING = "Updating"
    TERMINATING = "Terminating"
    TERMINATED = "Terminated"

    ALIVE = (CREATING, OK, ERRED, UPDATING, TERMINATING)
    WITHOUT_ORDER = (OK, ERRED)
    """States in which no order is in progress."""
    SERVED = (OK, ERRED, UPDATING, TERMINATING)
    """States in which members and usage are kept up to date, also while an order is in progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request of a customer. ``limits`` are in Waldur's measured units."""

    uuid: UUID
    type: str
    state: str
    created: datetime | None = None
    modified: datetime | None = None
    marketplace_resource_uuid: UUID | None = None
    """The resource ordered; very old servers fill it some time after the order appears."""
    resource_name: str = ""
    project_uuid: UUID | None = None
    project_name: str = ""
    project_slug: str = ""
    customer_uuid: UUID | None = None
    customer_name: str = ""
    customer_slug: str = ""
    limits: Mapping[str, Decimal | None] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    plan_uuid: UUID | None = None
    start_date: date | None = None
    backend_id: str = ""
    error_message: str = ""

    def resource_in(self, resources: Mapping[UUID, Resource]) -> Resource | None:
        """Its resource, if it is among these by UUID."""
        uuid = self.marketplace_resource_uuid
        return None if uuid is None else resources.get(uuid)

    @property
    def renewed_until(self) -> date | None:
        """Of a renewal, the end date that it asks for.

        Servers set it when the order is approved, when it is done, or not at all. Renewals are
        updates; the attributes of a creation are the customer's own, who may write this there.
        """
        is_renewal = self.type == OrderType.UPDATE and self.attributes.get("action") == "renew"
        return _date(self.attributes.get("new_end_date")) if is_renewal else None


def _date(value: object) -> date | None:
    try:
        return date.fromisoformat(str(value)[:_DATE_LENGTH])
    except ValueError:
        return None


RENEWAL_NOTE = "renewed"
"""The key of ``backend_metadata`` with a new end date that Waldur may not show yet."""


@dataclass(frozen=True, slots=True)
class Term:
    """The time that prepaid components are paid for; their limits are for one month of it."""

    start: date | None = None
    """The day, in UTC, on which the resource was ordered."""
    end: date | None = None
    """The day on which the resource ends."""

    @property
    def is_known(self) -> bool:
        """Whether Waldur says both; a limit then counts once for each month."""
        return self.start is not None and self.end is not None

    @property
    def months(self) -> int:
        """Calendar months, as Waldur charges them: the last one counts whole; at least one."""
        if self.start is None or self.end is None:
            return 1
        months = (self.end.year - self.start.year) * 12 + self.end.month - self.start.month
        return max(1, months + (self.end.day > self.start.day))

    @classmethod
    def of(cls, created: datetime | None, end: date | None) -> Term:
        """The term of a resource that was created at this moment."""
        if created is not None and created.tzinfo is not None:
            created = created.astimezone(UTC)
        return cls(None if created is None else created.date(), end)

    def extended(self, until: date | None) -> Term:
        """The term, ending no earlier than a date."""
        is_longer = until is not None and (self.end is None or self.end < until)
        return replace(self, end=until) if is_longer else self

    def __str__(self) -> str:
        if self.end is None or self.start is None:
            return "a month, counted for one month: it has no end date"
        plural = "" if self.months == 1 else "s"
        return f"a month for {self.months} month{plural}, until {self.end}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What a project bought. ``limits`` are in Waldur's measured units."""

    uuid: UUID
    name: str = ""
    slug: str = ""
    state: SharedText = ""
    backend_id: str = ""
    """The resource's name in the backend (Slurm: the account); empty until it is created."""
    offering_uuid: UUID | None = None
    project_uuid: UUID | None = None
    project_name: SharedText = ""
    project_slug: SharedText = ""
    customer_uuid: UUID | None = None
    customer_name: SharedText = ""
    customer_slug: SharedText = ""
    limits: Mapping[str, Decimal | None] = field(default_factory=dict)
    backend_metadata: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What the customer chose with the order."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options that the customer may change later."""
    plan_uuid: UUID | None = None
    end_date: date | None = None
    """The day on which Waldur orders the termination; of prepaid ones, how long they are paid."""
    project_end_date: date | None = None
    """The same for all resources of the project."""
    paused: bool = False
    downscaled: bool = False
    restrict_member_access: bool = False
    created: Moment | None = None
    modified: Moment | None = None
    """The last change of any kind; for a terminated resource, not before its termination."""
    last_sync: Moment | None = None
    error_message: str = ""
    order_in_progress: Mapping[str, Any] | None = None
    """The order in progress on the resource, if it was requested."""

    @property
    def account(self) -> str:
        """``backend_id`` as names are compared everywhere: backends keep lower case."""
        return self.backend_id.strip().lower()

    @property
    def ends_on(self) -> date | None:
        """The day on which it ends, with its project or before."""
        dates = [each for each in (self.end_date, self.project_end_date) if each is not None]
        return min(dates, default=None)

    @property
    def end_text(self) -> str:
        """When it ends, and whether with its project; empty if Waldur names no day."""
        if self.ends_on is None:
            return ""
        is_own = self.end_date == self.ends_on
        return f"ends on {self.ends_on}" + ("" if is_own else ", with its project")

    @property
    def term(self) -> Term:
        """The time that its prepaid components are paid for.

        A note about a renewal counts while Waldur shows the end date that it showed then.
        """
        note = self.backend_metadata.get(RENEWAL_NOTE)
        term = Term.of(self.created, self.end_date)
        shown = "" if self.end_date is None else self.end_date.isoformat()
        if isinstance(note, Mapping) and note.get("shown") == shown:
            return term.extended(_date(note.get("until")))
        return term


_DATE_LENGTH = len("2027-07-15")
_CENT = Decimal("0.01")


class AccountingType:
    """How a component is paid for; Waldur's ``billing_type``."""

    LIMIT = "limit"
    USAGE = "usage"
    ONE_TIME = "one"
    """Once, at the order; prepaid components are paid so, for all their months."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountingRules:
    """What the agent does with components of one accounting type."""

    is_limited: bool = False
    """Customers order a limit, which is set on the account and kept in sync with Waldur."""
    is_counted: bool = False
    """Waldur accepts usage reports."""
    is_capped: bool = False
    """New accounts get the ``limit`` of the configuration file as a fixed cap."""
    is_prepaid: bool = False
    """The limit is for one month, and the account gets it for all months at once. Waldur alone
    says how many there are, so nothing is reported back."""


ACCOUNTING_RULES: Mapping[str, AccountingRules] = {
    AccountingType.LIMIT: AccountingRules(is_limited=True, is_counted=True),
    AccountingType.USAGE: AccountingRules(is_counted=True, is_capped=True),
    AccountingType.ONE_TIME: AccountingRules(is_limited=True, is_counted=True, is_prepaid=True),
}
"""The one place that says which accounting type is limited, counted and capped.

The other types that Waldur has, such as ``fixed``, and one-time fees, are none of these.
"""


def rules_of(accounting_type: str, *, is_prepaid: bool) -> AccountingRules:
    """What the agent does with components of an accounting type.

    ``is_prepaid`` tells prepaid components from one-time fees.
    """
    if accounting_type == AccountingType.ONE_TIME and not is_prepaid:
        return AccountingRules()
    return ACCOUNTING_RULES.get(accounting_type, AccountingRules())


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A thing counted at the site, from ``backend_components`` of the configuration."""

    type: str
    """The backend's own name for it; Slurm: a TRES such as ``cpu`` or ``gres/gpu``."""
    measured_unit: str
    label: str
    accounting_type: str
    unit_factor: Decimal = Decimal(1)
    """Backend units in one of Waldur's measured units (``cpu`` in k-Hours: 60000 minutes)."""
    limit: Decimal | None = None
    """In measured units: Waldur's ``limit_amount`` and, of capped components, the cap that new
    accounts get."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the component in Waldur, as configured; the agent itself needs none."""
    for_plugins: Mapping[str, Any] = field(default_factory=dict)
    """Keys that only plugins written for version 1 read, as configured."""
    usage_factor: Decimal | None = None
    """Backend units of usage in one measured unit, if it differs from ``unit_factor``."""
    targets: Mapping[str, Decimal] = field(default_factory=dict)
    """What one measured unit consists of: types of the backend, with their backend units.

    A node-hour of 128 cores and 4 GPUs is ``cpu`` 7680 and ``gres/gpu`` 240 minutes. Empty for a
    component that the backend has under its own type.
    """
    term: Term | None = None
    """Of a prepaid component, the time that a resource is paid for; ``None`` until it is known
    which resource is meant."""

    @property
    def is_prepaid(self) -> bool:
        """Whether it is paid in advance, for a number of months."""
        return self.rules.is_prepaid

    def for_term(self, term: Term) -> Component:
        """The component as a resource with this term has it; others than prepaid stay the same."""
        return replace(self, term=term) if self.is_prepaid else self

    @property
    def limit_factor(self) -> Decimal:
        """Backend units of the limit in one measured unit that is sold: of all months."""
        return self.unit_factor * (1 if self.term is None else self.term.months)

    @property
    def unit_text(self) -> str:
        """The measured unit of a limit, of prepaid components with the months."""
        return self.measured_unit if self.term is None else f"{self.measured_unit} {self.term}"

    @property
    def parts(self) -> tuple[Component, ...]:
        """The component as the backend knows it: itself, or one part per target.

        The ``unit_factor`` of a part is the target's factor, so the one of the whole has no
        effect.
        """
        if not self.targets:
            return (self,)
        return tuple(
            replace(self, type=name, unit_factor=factor, usage_factor=None, targets={})
            for name, factor in self.targets.items()
        )

    @property
    def rules(self) -> AccountingRules:
        """What the accounting type means for the component."""
        is_fee = self.details.get("is_prepaid") is False
        return rules_of(self.accounting_type, is_prepaid=not is_fee)

    @property
    def cap(self) -> Decimal | None:
        """The fixed cap in measured units, if the component has one."""
        return self.limit if self.rules.is_capped else None

    def to_backend(self, measured: Decimal) -> Decimal:
        """A limit of measured units in backend units, exactly."""
        return (measured * self.limit_factor).normalize() + 0

    def to_measured(self, amount: Decimal) -> Decimal:
        """A limit of backend units in measured units, rounded to two decimals as in Waldur."""
        return (amount / self.limit_factor).quantize(_CENT)

    @property
    def usage_factors(self) -> dict[str, Fraction]:
        """By the backend's own types, the backend units of usage in one measured unit."""
        return {part.type: Fraction(part.usage_factor or part.unit_factor) for part in self.parts}


def largest_share(amounts: Mapping[str, Fraction], factors: Mapping[str, Fraction]) -> Fraction:
    """Usage in measured units, exactly, from amounts of backend units by type.

    Of several targets the largest share counts: a job that takes all GPUs of a node and half of
    its cores uses the node. This is also the share that reaches the limit first.
    """
    return max(amounts.get(name, Fraction(0)) / factor for name, factor in factors.items())


def backend_components(components: Mapping[str, Component]) -> dict[str, Component]:
    """The components by the backend's own types; each type belongs to one component."""
    return {part.type: part for component in components.values() for part in component.parts}


@dataclass(frozen=True, slots=True, kw_only=True)
class WaldurComponent:
    """A component of an offering in Waldur."""

    type: str
    uuid: UUID | None = None
    name: str = ""
    description: str = ""
    measured_unit: str = ""
    billing_type: str = ""
    unit_factor: Decimal | None = None
    limit_period: str | None = None
    limit_amount: Decimal | None = None
    article_code: str = ""
    max_value: Decimal | None = None
    min_value: Decimal | None = None
    max_available_limit: Decimal | None = None
    default_limit: Decimal | None = None
    is_boolean: bool = False
    is_builtin: bool = False
    is_prepaid: bool | None = None
    """``None``, as the fields below, where the server does not have it."""
    min_prepaid_duration: int | None = None
    """In months, as the other durations."""
    max_prepaid_duration: int | None = None
    prepaid_duration_step: int | None = None
    min_renewal_duration: int | None = None
    max_renewal_duration: int | None = None
    renewal_duration_step: int | None = None

    @property
    def rules(self) -> AccountingRules:
        """What the billing type means for the component."""
        return rules_of(self.billing_type, is_prepaid=bool(self.is_prepaid))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionQos:
    """A QOS that can be ordered in a partition of an offering."""

    qos_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition of the cluster that an offering sells."""

    partition_name: str = ""
    qos_options: tuple[PartitionQos, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QosProfile:
    """A QOS that an offering sells."""

    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaldurOffering:
    """The offering in Waldur."""

    uuid: UUID
    name: str = ""
    type: str = ""
    state: str = ""
    customer_uuid: UUID | None = None
    customer_name: str = ""
    components: tuple[WaldurComponent, ...] = ()
    plugin_options: Mapping[str, Any] = field(default_factory=dict)
    partitions: tuple[Partition, ...] = ()
    """Servers before 7.9 have none."""
    qos_profiles: tuple[QosProfile, ...] = ()
    """Servers before 8.0 have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferingPlan:
    """A plan by which an offering is sold."""

    uuid: UUID
    name: str = ""
    quotas: Mapping[str, Decimal | None] = field(default_factory=dict)
    """By component, what the plan includes, in measured units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferingPlans:
    """The plans of an offering."""

    uuid: UUID
    plans: tuple[OfferingPlan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceProvider:
    """The organization in its role of selling offerings."""

    uuid: UUID
    customer_uuid: UUID | None = None
    customer_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLimit:
    """The most that one person may use of one component of a resource, in measured units."""

    uuid: UUID
    resource_uuid: Annotated[UuidFromUrl, Field(validation_alias="resource")] = None
    """``None``, as for the person, where Waldur's answer does not say it."""
    offering_user_uuid: Annotated[UuidFromUrl, Field(validation_alias="user")] = None
    component_type: str = ""
    limit: Decimal | None = None


def short_role(name: str) -> str:
    """A role name in short form: ``PROJECT.ADMIN`` is ``admin``."""
    return name.strip().lower().removeprefix("project.")


def has_ended(end: datetime | None, now: datetime) -> bool:
    """Whether a role's end has passed at an aware moment; an end without a zone means UTC.

    Waldur's own clean-up of such roles may come hours later.
    """
    return end is not None and aware(end) <= now


class OfferingUserState:
    """The states of an offering user that the agent acts on; there are others."""

    REQUESTED = "Requested"
    CREATING = "Creating"
    PENDING_ACCOUNT_LINKING = "Pending account linking"
    PENDING_ADDITIONAL_VALIDATION = "Pending additional validation"
    OK = "OK"
    REQUESTED_DELETION = "Requested deletion"
    DELETING = "Deleting"
    DELETED = "Deleted"
    ERROR_CREATING = "Error creating"
    ERROR_DELETING = "Error deleting"


KNOWN_USER_STATES = frozenset(
    value for name, value in vars(OfferingUserState).items() if name.isupper()
)
"""For other states, of newer servers, the agent does not know what they mean for access."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferingUser:
    """A person's account name (``username``) at one offering; unique by ``user_uuid`` there."""

    uuid: UUID
    user_uuid: UUID
    username: SharedText = ""
    state: SharedText = OfferingUserState.OK
    """Servers before the states were introduced send none: an account then counts as usable."""
    is_restricted: bool = False
    has_consent: bool | None = None
    """Whether the person has consented to the offering's terms; ``None`` before server 7.9."""
    offering_has_active_tos: bool | None = None
    """Whether there are terms to consent to; ``None`` where the server does not say."""
    user_username: str = ""
    user_full_name: str = ""
    user_first_name: SharedText = ""
    """Empty, as the last name and the e-mail address, where the offering does not expose it."""
    user_last_name: SharedText = ""
    user_email: str = ""
    service_provider_comment: SharedText = ""
    """The site's message to the user who waits for the account."""
    service_provider_comment_url: SharedText = ""
    created: Moment | None = None
    modified: Moment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamMember:
    """A person with an active role in a project, as the team of one resource lists them."""

    uuid: UUID
    """The person's own UUID, not that of the role or of the offering user."""
    username: str = ""
    full_name: str = ""
    email: str = ""
    role: SharedText = ""
    expiration_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectRole:
    """An active role of one person in one project, from the provider's list of all projects."""

    project_uuid: UUID
    user_uuid: UUID
    role_name: SharedText = ""
    expiration_time: datetime | None = None


@lru_cache(maxsize=1024)
def _shared(column: tuple[Any, ...]) -> tuple[Any, ...]:
    return column


class ProjectTeam(Collection[TeamMember]):
    """The team of a project, from its roles.

    In columns, of which most teams have the same: of a million people with a role, an object for
    each would take five times the memory.
    """

    __slots__ = ("_ends", "_people", "_roles")

    def __init__(self, roles: Collection[ProjectRole]) -> None:
        self._people = tuple(role.user_uuid for role in roles)
        self._roles = _shared(tuple(role.role_name for role in roles))
        self._ends = _shared(tuple(role.expiration_time for role in roles))

    def __len__(self) -> int:
        return len(self._people)

    def __iter__(self) -> Iterator[TeamMember]:
        for uuid, role, end in zip(self._people, self._roles, self._ends, strict=True):
            yield TeamMember(uuid=uuid, role=role, expiration_time=end)

    def __contains__(self, member: object) -> bool:
        return any(each == member for each in self)


class ProjectAccountState:
    """The states of a project's service and course accounts; newer servers may have others."""

    OK = "OK"
    PENDING = "Pending"
    """A course account that has no username yet."""
    CLOSED = "Closed"
    """Closed accounts stay listed."""
    ERRED = "Erred"


KNOWN_ACCOUNT_STATES = frozenset(
    value for name, value in vars(ProjectAccountState).items() if name.isupper()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectAccount:
    """An account of a project instead of a person: a service account or a course account."""

    uuid: UUID
    project_uuid: UUID | None = None
    username: str = ""
    state: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One role of the agent's own user: on what it holds, and which."""

    role_name: str = ""
    scope_type: str = ""
    scope_uuid: UUID | None = None
    scope_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """The user whose token the agent presents."""

    uuid: UUID
    username: str = ""
    full_name: str = ""
    is_staff: bool = False
    token_lifetime: int | None = None
    """Seconds of silence after which the token dies; ``None`` means never."""
    permissions: tuple[Permission, ...] = ()


class ImportState:
    """The states of a request for importable resources."""

    SENT = "Sent"
    PROCESSING = "Processing"
    DONE = "Done"
    ERRED = "Erred"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResourceRequest:
    """A request to list what exists in an offering's backend and belongs to no resource."""

    uuid: UUID
    state: str = ""
    offering_uuid: Annotated[UuidFromUrl, Field(validation_alias="offering")] = None
    created: datetime | None = None
    error_message: str = ""


def _mapping_or_empty(metadata: object) -> object:
    """The metadata of an importable resource, which Waldur accepts in any JSON type."""
    return metadata if isinstance(metadata, Mapping) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendResource:
    """Something in the backend that may become a resource of a project."""

    uuid: UUID
    name: str = ""
    backend_id: str = ""
    """Its name in the backend (Slurm: the account)."""
    project_uuid: Annotated[UuidFromUrl, Field(validation_alias="project")] = None
    offering_uuid: Annotated[UuidFromUrl, Field(validation_alias="offering")] = None
    backend_metadata: Annotated[Mapping[str, Any], BeforeValidator(_mapping_or_empty)] = field(
        default_factory=dict
    )

    @property
    def account(self) -> str:
        """``backend_id`` as names are compared everywhere: backends keep lower case."""
        return self.backend_id.strip().lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project, found by the slug that is part of its account's name."""

    uuid: UUID
    name: str = ""
    slug: str = ""
    customer_uuid: UUID | None = None
    customer_name: str = ""
    customer_slug: str = ""
