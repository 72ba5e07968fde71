"""What the gateway says of usage, the sandbox keeps; in every generation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from waldur_site_agent.model.errors import PermanentError
from waldur_site_agent.model.usage import BillingMonth, UserUsage
from waldur_site_agent.waldur import (
    AbsentOperationError,
    AccessDeniedError,
    PastMonthRefusedError,
    Waldur,
)

if TYPE_CHECKING:
    from waldur_site_agent_sandbox import Sandbox
    from waldur_site_agent_sandbox.records import Resource

GPU = "gres/gpu"


@pytest.fixture
def resource(sandbox: Sandbox, waldur: Waldur) -> Resource:
    """One that is OK, without usage."""
    found = next(iter(sandbox.customer.world.resources.values()))
    waldur.set_as_ok(found.uuid)
    return found


def this_month(sandbox: Sandbox) -> BillingMonth:
    return BillingMonth.of(sandbox.clock.now(), UTC)


def last_month_moment(sandbox: Sandbox) -> datetime:
    return sandbox.clock.now().replace(day=1) - timedelta(days=1)


def test_usage_is_told_replaced_and_read_again(
    sandbox: Sandbox, waldur: Waldur, resource: Resource
) -> None:
    offering, month = sandbox.offering.uuid, this_month(sandbox)
    assert waldur.component_usages(offering, month).require_complete("usages") == ()
    waldur.set_usage(resource.uuid, {"cpu": Decimal(99), GPU: Decimal("0.1")})
    waldur.set_usage(resource.uuid, {"cpu": Decimal("10.5"), GPU: Decimal(0)})
    sandbox.customer.put_usage(resource, "cpu", "7", last_month_moment(sandbox).date())

    read = waldur.component_usages(offering, month).require_complete("usages")
    assert {row.type: row.usage for row in read} == {"cpu": Decimal("10.5"), GPU: Decimal(0)}
    assert {row.resource_uuid for row in read} == {UUID(resource.uuid)}
    (before,) = waldur.component_usages(offering, month.previous).require_complete("usages")
    assert (before.usage, before.billing_period) == (Decimal(7), month.previous.first_day)


def test_parts_of_people_are_told_in_bulk_where_the_server_can(
    sandbox: Sandbox, waldur: Waldur, resource: Resource
) -> None:
    offering, month = sandbox.offering.uuid, this_month(sandbox)
    waldur.set_usage(resource.uuid, {"cpu": Decimal(3)})
    (usage,) = waldur.component_usages(offering, month).items
    users = waldur.offering_users(offering).require_complete("users")
    ada = next(user for user in users if user.user_username == "ada")
    parts = [
        UserUsage(username="ada01", usage=Decimal("1.25"), offering_user_uuid=ada.uuid),
        UserUsage(username="nobody", usage=Decimal("1.75")),
    ]
    for _ in range(2):
        try:
            waldur.set_user_usages(usage.uuid, parts)
        except AbsentOperationError:
            assert sandbox.server_version in ("7.7.9", "8.0.2")
            for part in parts:
                waldur.set_user_usage(usage.uuid, part)
    read = waldur.component_user_usages(offering, month).require_complete("parts")
    assert {(row.username, row.usage, row.component_usage_uuid) for row in read} == {
        ("ada01", Decimal("1.25"), usage.uuid),
        ("nobody", Decimal("1.75"), usage.uuid),
    }
    assert {(row.component_type, row.resource_uuid) for row in read} == {
        ("cpu", UUID(resource.uuid))
    }
    assert waldur.count_component_user_usages(offering, month) == 2
    assert waldur.count_component_user_usages(offering, month.previous) == 0
    stored = {row.username: row.account for row in sandbox.customer.world.user_usages.values()}
    assert stored == {"ada01": ada.uuid.hex, "nobody": ""}


def test_a_past_month_is_named_only_to_servers_that_read_it(
    sandbox: Sandbox, waldur: Waldur, resource: Resource
) -> None:
    when, month = last_month_moment(sandbox), this_month(sandbox)
    assert waldur.accepts_usage_dates() is (sandbox.server_version != "7.7.9")
    if not waldur.accepts_usage_dates():
        return
    with pytest.raises(PastMonthRefusedError, match="backfilling past billing periods"):
        waldur.set_usage(resource.uuid, {GPU: Decimal(1)}, when)
    waldur.set_usage(resource.uuid, {"cpu": Decimal(1)}, when)
    with Waldur(waldur.base_url, sandbox.staff().token) as staff:
        staff.set_usage(resource.uuid, {GPU: Decimal(2)}, when)
    booked = sandbox.customer.usages(resource, str(month.previous))
    assert booked == {"cpu": Decimal(1), GPU: Decimal(2)}
    assert sandbox.customer.usages(resource) == {}


def test_usage_that_waldur_refuses_comes_with_its_words(
    sandbox: Sandbox, waldur: Waldur, resource: Resource
) -> None:
    with pytest.raises(PermanentError, match="components are invalid: zzz"):
        waldur.set_usage(resource.uuid, {"cpu": Decimal(1), "zzz": Decimal(1)})
    waldur.set_as_erred(resource.uuid, "gone")
    with pytest.raises(PermanentError, match="Resource is not in valid state"):
        waldur.set_usage(resource.uuid, {"cpu": Decimal(1)})
    assert sandbox.customer.usages(resource) == {}
    with (
        Waldur(waldur.base_url, sandbox.customer.add_user("stranger").token) as stranger,
        pytest.raises(AccessDeniedError),
    ):
        stranger.set_usage(resource.uuid, {"cpu": Decimal(1)})


def test_a_month_with_hundreds_of_idle_rows_is_read_whole(
    sandbox: Sandbox, waldur: Waldur, resource: Resource
) -> None:
    usage = sandbox.customer.put_usage(resource, "cpu", 0)
    for number in range(330):
        sandbox.customer.put_usage(resource, "mem", 0, plan_period=f"{number:032x}")
        sandbox.customer.put_user_usage(usage, f"user{number % 7}", 0)
    offering, month = sandbox.offering.uuid, this_month(sandbox)
    sandbox.requests.clear()
    assert len(waldur.component_usages(offering, month).require_complete("usages")) == 331
    assert len(waldur.component_user_usages(offering, month).require_complete("parts")) == 330
    assert sandbox.requests.count() == 4
