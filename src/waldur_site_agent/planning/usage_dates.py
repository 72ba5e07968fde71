"""Into which month Waldur books what it is sent, and when a month can be sent at all.

A server that reads the ``date`` of a report books it into that date's month; an older one books
everything into its own current month. Waldur's months are those of UTC; the site's own may begin
and end some hours earlier or later.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from waldur_site_agent.model.usage import BillingMonth

if TYPE_CHECKING:
    from datetime import datetime

MARGIN = timedelta(minutes=10)
"""How far the clocks of the agent and of a server without dates may differ, delays included.

A report that arrives in the wrong month replaces that month's figure, so none is sent nearer to
the border than this.
"""
_SAFE_HOUR = 9
"""At this hour in UTC it is the same day almost everywhere."""


def is_past_in_waldur(month: BillingMonth, now: datetime) -> bool:
    """Whether Waldur has begun a later month already."""
    return month < BillingMonth.of(now, UTC)


def why_not_now(month: BillingMonth, now: datetime, *, accepts_dates: bool) -> str:
    """Why nothing can be sent for the month at this moment; empty when it can.

    Args:
        month: the month of the figures.
        now: the moment of sending.
        accepts_dates: whether the server books a report into the month of its date.
    """
    if BillingMonth.of(now, UTC) < month:
        return f"{month} has not begun in Waldur, whose months are those of UTC"
    if accepts_dates or {BillingMonth.of(now + by, UTC) for by in (-MARGIN, MARGIN)} == {month}:
        return ""
    return f"this server books usage into its current month only, which is not surely {month}"


def booking_date(month: BillingMonth, now: datetime, *known: datetime | None) -> datetime:
    """A moment inside the month, in UTC, by which Waldur books a report.

    For the current month this moment; for a past one a moment on its last day, but none before
    those that are ``known`` to lie within the resource's last plan: its creation, and the dates of
    its newest figures.
    """
    if BillingMonth.of(now, UTC) == month:
        return now.astimezone(UTC)
    end = month.period(UTC).end
    last = end - timedelta(days=1) + timedelta(hours=_SAFE_HOUR)
    return max([last, *(k.astimezone(UTC) for k in known if k is not None and last < k < end)])
