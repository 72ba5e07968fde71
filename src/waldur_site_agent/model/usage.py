"""Usage: over which time, of which resource, by whom, and what Waldur has of it.

Amounts are exact. A backend speaks of backend units (Slurm: TRES-minutes, so a second is a 60th);
Waldur of its measured units, with two decimals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, TypeAlias
from uuid import UUID

from pydantic import Field

from waldur_site_agent.model.marketplace import UuidFromUrl

Amounts: TypeAlias = Mapping[str, Fraction]
"""By component type, in backend units."""

Day: TypeAlias = date
"""A date, also where a field of that name hides the type from those who read annotations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A span of time; both ends are aware, the end does not belong to it."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("a period needs times with a time zone")
        if self.end.timestamp() < self.start.timestamp():
            raise ValueError(f"a period cannot end before it starts: {self.start} to {self.end}")


@dataclass(frozen=True, slots=True, order=True)
class BillingMonth:
    """A calendar month; where it begins and ends depends on the site's time zone."""

    year: int
    month: int

    @classmethod
    def of(cls, moment: datetime, zone: tzinfo) -> BillingMonth:
        """The month that an aware moment belongs to in this zone."""
        local = moment.astimezone(zone)
        return cls(local.year, local.month)

    @classmethod
    def parse(cls, text: str) -> BillingMonth:
        """Read ``2026-10``.

        Raises:
            ValueError: the text is not a month.
        """
        year, _, month = text.partition("-")
        if not (len(year) == 4 and len(month) == 2 and (year + month).isdecimal()):  # noqa: PLR2004 - digits of YYYY-MM
            raise ValueError(f'"{text}" is not a month; expected one such as 2026-10')
        date(int(year), int(month), 1)
        return cls(int(year), int(month))

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    @property
    def first_day(self) -> date:
        """The month as Waldur names billing periods."""
        return date(self.year, self.month, 1)

    @property
    def next(self) -> BillingMonth:
        """The month after this one."""
        return BillingMonth(self.year + self.month // 12, self.month % 12 + 1)

    @property
    def previous(self) -> BillingMonth:
        """The month before this one."""
        return BillingMonth(self.year - (self.month == 1), (self.month - 2) % 12 + 1)

    def period(self, zone: tzinfo) -> Period:
        """From the first midnight of the month in this zone to that of the next month."""
        following = self.next
        return Period(
            start=datetime(self.year, self.month, 1, tzinfo=zone),
            end=datetime(following.year, following.month, 1, tzinfo=zone),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUsage:
    """What was used of one resource; the total is by definition the sum over its users."""

    by_user: Mapping[str, Amounts] = field(default_factory=dict)
    """By username; under ``""`` what is known to be used, but not by whom."""

    @property
    def total(self) -> dict[str, Fraction]:
        """The exact sum over all users, by component type."""
        total: dict[str, Fraction] = defaultdict(Fraction)
        for amounts in self.by_user.values():
            for component, amount in amounts.items():
                total[component] += amount
        return dict(total)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """What a backend says was used in a period, in backend units, exactly."""

    period: Period
    resources: Mapping[str, ResourceUsage]
    """Every requested resource is included; an idle one has no users."""
    remarks: tuple[str, ...] = ()
    """What an administrator should know of the figures: work that belongs to nobody, and so on."""
    is_settled: bool = True
    """Whether the figures of a period that is over are final. ``False``: some work is left out
    because its end is not known yet, so a later reading may have more. Never less."""
    unfinished: frozenset[str] = frozenset()
    """Resources with work that is left out until its end is known."""
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Resources whose usage could not be read, and why: nothing is sent for them this time."""
    untold: frozenset[str] = frozenset()
    """Resources whose usage of the period the backend never tells: nothing is sent for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentUsage:
    """Waldur's figure for one component of one resource in one month, in measured units."""

    uuid: UUID
    type: str = ""
    usage: Decimal = Decimal(0)
    resource_uuid: UUID | None = None
    billing_period: Day | None = None
    date: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentUserUsage:
    """One person's part of a component usage, in measured units."""

    uuid: UUID
    username: str = ""
    usage: Decimal = Decimal(0)
    component_type: str = ""
    component_usage_uuid: Annotated[UuidFromUrl, Field(validation_alias="component_usage")] = None
    """``None`` where Waldur's answer does not say it."""
    resource_uuid: UUID | None = None
    billing_period: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUsage:
    """One user's usage of one component of a resource in a month, as reported to Waldur."""

    username: str
    """The person's account at the site."""
    usage: Decimal
    """In measured units, with at most two decimals."""
    offering_user_uuid: UUID | None = None
    """The offering user with that account; ``None`` if Waldur has none."""
