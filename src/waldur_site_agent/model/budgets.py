"""Policies in Waldur that say what resources may use in each period."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID


class PolicyPeriod:
    """How long a period is, as policies number it."""

    TOTAL = 1
    MONTH = 2
    QUARTER = 3
    YEAR = 4

    OF_COMPONENTS: Mapping[str, int] = {
        "month": MONTH,
        "quarterly": QUARTER,
        "annual": YEAR,
        "total": TOTAL,
    }
    """By ``limit_period`` of components."""


class LimitType:
    """What kind of limit a policy sets, by Slurm's names."""

    TOTAL = "GrpTRESMins"
    PER_JOB = "MaxTRESMins"
    CONCURRENT = "GrpTRES"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicPolicy:
    """A rule in Waldur that sets the limits of an offering's resources anew each period.

    An offering has one at most. While there is one, Waldur drops changes that others make to limits
    of limit components. Fields are ``None`` where the server does not have them.
    """

    uuid: UUID
    scope_uuid: UUID | None = None
    """The offering."""
    apply_to_all: bool | None = None
    """Whether it is for every customer; otherwise for those of some organization groups."""
    period: int | str | None = None
    """See :class:`PolicyPeriod`; ``limit_period`` of the components takes precedence. Text where a
    newer server has a period that is not listed there."""
    limit_type: str | None = None
    carryover_enabled: bool | None = None
    carryover_factor: Decimal | None = None
    """How many percent of a limit may be carried over from the period before."""
    grace_ratio: Decimal | None = None
    """The part of the budget that may be used beyond it: 0.2 for 20 %."""
    raw_usage_reset: bool | None = None
    """Whether the backend's count of usage starts from zero in each period."""
    tres_billing_enabled: bool | None = None
    """Whether the budget limits ``billing`` as well."""
    tres_billing_weights: Mapping[str, Any] | None = field(default_factory=dict)
    """Billing units by TRES; memory by the GiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult:
    """What became of applying a policy to a resource, as reported to Waldur."""

    resource_uuid: UUID
    success: bool
    error_message: str = ""
    commands_executed: tuple[str, ...] = ()
