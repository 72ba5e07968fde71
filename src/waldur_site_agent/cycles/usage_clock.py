"""Whose clock counts: Waldur's, by which it books; ours has to agree with it."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.planning.usage_dates import why_not_now

if TYPE_CHECKING:
    from datetime import datetime

    from waldur_site_agent.cycles.site import Site
    from waldur_site_agent.model.usage import BillingMonth

TOLERANCE = timedelta(minutes=5)
"""How far the two clocks may differ.

Running work is counted up to now, and what a clock that is ahead makes too high is billed: a figure
that became lower would not be sent.
"""


def check_clocks(site: Site) -> None:
    """Refuse to work with a clock that is wrong.

    Raises:
        TemporaryError: the clocks of this machine and of Waldur's differ too much.
    """
    ahead = timedelta(seconds=site.waldur.clock_ahead_seconds() or 0)
    if abs(ahead) <= TOLERANCE:
        return
    here = site.now().astimezone(UTC)
    raise TemporaryError(
        f"no usage is reported: by this machine's clock it is {_text(here)}, by Waldur's "
        f"{_text(here + ahead)}; set right the one that is wrong (NTP: chronyc, timedatectl)"
    )


def waldurs_time(site: Site) -> datetime:
    """The time by the server's clock, as its answers tell it: that is the one it books by."""
    return site.now() + timedelta(seconds=site.waldur.clock_ahead_seconds() or 0)


def why_not_yet(site: Site, month: BillingMonth) -> str:
    """Why nothing of the month can be sent at this moment; empty when it can.

    Whether the server reads dates is asked only where the answer depends on it.

    Raises:
        TemporaryError: the server could not be asked.
        AccessDeniedError: the token may not report usage.
    """
    now = waldurs_time(site)
    if not why_not_now(month, now, accepts_dates=False):
        return ""
    return why_not_now(month, now, accepts_dates=site.waldur.accepts_usage_dates())


def is_never_taken(site: Site, month: BillingMonth) -> bool:
    """Whether nothing of the month can be sent at this moment, by what is known without asking."""
    accepts_dates = site.waldur.usage_dates_accepted is not False
    return bool(why_not_now(month, waldurs_time(site), accepts_dates=accepts_dates))


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
