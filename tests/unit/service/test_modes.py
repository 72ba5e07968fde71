"""When the modes have their turns."""

from __future__ import annotations

from datetime import datetime

import pytest

from waldur_site_agent.service.session import MEMBERSHIP_SYNC, REPORT


@pytest.mark.parametrize(
    ("now", "seconds"),
    [
        ("2027-03-31T23:15:00+00:00", 1800),
        ("2027-03-31T23:20:00+00:00", 28 * 60),
        ("2027-04-01T02:47:59+03:00", 1),
        ("2027-03-31T23:48:00+00:00", 1800),
        ("2027-03-31T23:59:00+00:00", 1800),
        ("2027-03-30T23:20:00+00:00", 1800),
    ],
)
def test_usage_is_reported_once_more_shortly_before_a_month_ends_in_waldur(
    now: str, seconds: float
) -> None:
    moment = datetime.fromisoformat(now)
    assert REPORT.seconds_to_rest(1800, moment) == seconds
    assert MEMBERSHIP_SYNC.seconds_to_rest(1800, moment) == 1800
