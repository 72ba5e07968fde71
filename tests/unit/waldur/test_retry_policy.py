from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.waldur import RetryPolicy
from waldur_site_agent.waldur.http import full_jitter, read_retry_after

NOON = 1_767_268_800.0  # Thu, 01 Jan 2026 12:00:00 GMT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 12:00:30 -0000", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(
    header: str | None, seconds: float | None
) -> None:
    assert seconds == read_retry_after(header, now=lambda: NOON)


@given(st.integers(2, 200), st.none() | st.floats(0, 1e9))
def test_no_wait_is_longer_than_the_policy_says(attempt: int, retry_after: float | None) -> None:
    policy = RetryPolicy()
    wait = policy.wait_before(attempt, retry_after)
    assert 0 <= wait <= max(policy.longest_wait, policy.longest_retry_after)


def test_waits_double_until_the_longest() -> None:
    policy = RetryPolicy(first_wait=1, longest_wait=5, jitter=lambda ceiling: ceiling)
    assert [policy.wait_before(attempt, None) for attempt in range(2, 7)] == [1, 2, 4, 5, 5]


@given(st.floats(0, 100))
def test_jitter_stays_below_its_ceiling(ceiling: float) -> None:
    assert 0 <= full_jitter(ceiling) <= ceiling
