"""What was reported as used, as Waldur stores it."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentUsage:
    """How much of one component of a resource was used in a month, in the measured unit."""

    uuid: str
    created: datetime
    reported: datetime
    """When it was reported last, or the moment that the report named."""
    resource: str
    component_type: str
    billing_period: date
    """The first day of the month, cut in UTC."""
    usage: Decimal
    plan_period: str = ""
    """A resource whose plan changed has a row for each of its plans; empty is the present one."""
    description: str = ""
    recurring: bool = False
    modified_by: str = ""
    """The user who reported it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUsage:
    """One person's part of a component usage."""

    uuid: str
    created: datetime
    modified: datetime
    component_usage: str
    username: str
    """As the provider calls the person; Waldur checks nothing about it."""
    usage: Decimal
    account: str = ""
    """The offering user, where the first report named one."""
