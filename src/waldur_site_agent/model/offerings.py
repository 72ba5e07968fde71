"""An offering and its components, as Waldur tells of them and as the site configures them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID


class AccountingType:
    """How a component is paid for; Waldur's ``billing_type``."""

    LIMIT = "limit"
    USAGE = "usage"


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
    """For usage components: a cap in measured units that is set when a resource is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaldurComponent:
    """A component as it stands in Waldur."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class WaldurOffering:
    """The offering as it stands in Waldur."""

    uuid: UUID
    name: str = ""
    type: str = ""
    state: str = ""
    customer_uuid: UUID | None = None
    customer_name: str = ""
    components: tuple[WaldurComponent, ...] = ()
    plugin_options: Mapping[str, Any] = field(default_factory=dict)


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
    resource_uuid: UUID | None = None
    """``None``, as for the person, where Waldur's answer does not say it."""
    offering_user_uuid: UUID | None = None
    component_type: str = ""
    limit: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicPolicy:
    """A rule in Waldur that sets the limits of an offering's resources anew each period.

    While there is one, Waldur drops changes that others make to limits of limit components.
    """

    uuid: UUID
    scope_uuid: UUID | None = None
    """The offering."""
