"""Units, access, components and the guard."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent.backends import AddMembers, DeleteResource, PermanentError, RemoveMembers
from waldur_site_agent.model.marketplace import Component, OfferingUser, TeamMember, WaldurComponent
from waldur_site_agent.planning.limits import initial_limits, ordered_limits
from waldur_site_agent.planning.membership import granted_usernames, usable_usernames
from waldur_site_agent.planning.offering import plan_components
from waldur_site_agent.planning.plan import Plan, Step, Thresholds, guard

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def component(accounting: str = "limit", factor: str = "60", **changes: Any) -> Component:
    values: dict[str, Any] = {"type": "cpu", "measured_unit": "h", "label": "CPU"} | changes
    return Component(accounting_type=accounting, unit_factor=Decimal(factor), **values)


def test_k_hours_become_minutes_exactly() -> None:
    limits = ordered_limits({"cpu": Decimal("0.1")}, {"cpu": component(factor="60000")})
    assert limits == {"cpu": Decimal(6000)}


def test_a_usage_component_gets_its_fixed_cap_only_when_the_resource_is_made() -> None:
    components = {"cpu": component("usage", limit=Decimal(3))}
    assert initial_limits({"cpu": Decimal(9)}, components) == {"cpu": Decimal(180)}
    assert ordered_limits({"cpu": Decimal(9)}, components) == {}


def test_a_limit_that_the_order_does_not_mention_is_left_alone() -> None:
    assert ordered_limits({"cpu": None}, {"cpu": component()}) == {}


@pytest.mark.parametrize("value", ["-1", "NaN", "Infinity"])
def test_a_limit_that_is_no_amount_is_refused_by_name(value: str) -> None:
    with pytest.raises(PermanentError, match='component "cpu"'):
        ordered_limits({"cpu": Decimal(value)}, {"cpu": component()})


@given(value=st.decimals(0, 10**9, places=2), factor=st.integers(1, 10**6))
def test_conversion_loses_nothing(value: Decimal, factor: int) -> None:
    limits = ordered_limits({"cpu": value}, {"cpu": component(factor=str(factor))})
    assert limits["cpu"] * 100 == int(value * 100) * factor


def user(person: UUID, **changes: Any) -> OfferingUser:
    return OfferingUser(uuid=uuid4(), user_uuid=person, **({"username": "ada"} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"username": ""},
        {"state": "Creating"},
        {"state": "Deleting"},
        {"is_restricted": True},
        {"state": "A state of the future"},
    ],
)
def test_only_a_working_account_grants_access(changes: dict[str, Any]) -> None:
    person = uuid4()
    assert usable_usernames([user(person)]) == {person: "ada"}
    assert usable_usernames([user(person, **changes)]) == {}


def test_access_goes_to_the_team_and_to_nobody_else() -> None:
    member, stranger = uuid4(), uuid4()
    usernames = {member: "ada", stranger: "eve"}
    assert granted_usernames([TeamMember(uuid=member)], usernames, NOW) == {"ada"}


def test_a_role_that_has_ended_grants_nothing() -> None:
    person = uuid4()
    yesterday = TeamMember(uuid=person, expiration_time=NOW - timedelta(days=1))
    tomorrow = TeamMember(uuid=person, expiration_time=NOW + timedelta(days=1))
    assert granted_usernames([yesterday], {person: "ada"}, NOW) == frozenset()
    assert granted_usernames([yesterday, tomorrow], {person: "ada"}, NOW) == {"ada"}


def test_components_are_made_updated_or_left_alone() -> None:
    same = WaldurComponent(
        type="cpu",
        uuid=uuid4(),
        name="CPU",
        measured_unit="h",
        billing_type="limit",
        unit_factor=Decimal(60),
        description="kept",
        article_code="A1",
    )
    foreign = WaldurComponent(type="storage", name="Storage")
    configured = {"cpu": component(), "mem": component(type="mem", label="RAM")}
    plan = plan_components(configured, [same, foreign])
    assert plan.unchanged == ("cpu",)
    assert [(new.type, new.name) for new in plan.create] == [("mem", "RAM")]
    assert plan.only_in_waldur == ("storage",)

    plan = plan_components({"cpu": component(factor="30")}, [same])
    assert plan.update[0].unit_factor == Decimal(30)
    assert (plan.update[0].description, plan.update[0].article_code) == ("kept", "A1")
    assert plan.update[0].uuid == same.uuid


THRESHOLDS = Thresholds(max_removals_percent=Decimal(30), max_removals=10)


def removal(count: int) -> Step:
    return Step(RemoveMembers("a", tuple(f"u{n}" for n in range(count))), "left")


ADDITION = Step(AddMembers("a", ("new",)), "joined")


@pytest.mark.guarantee("Removals are bounded")
@pytest.mark.parametrize(
    ("removed", "members", "allowed"),
    [(10, 10, True), (11, 100, True), (31, 100, False), (30, 100, True), (11, 11, False)],
)
def test_removals_are_refused_only_above_both_thresholds(
    removed: int, members: int, allowed: bool
) -> None:
    guarded = guard(Plan((removal(removed), ADDITION)), members, 0, THRESHOLDS)
    assert (guarded.reason == "") is allowed
    assert ADDITION in guarded.allowed.steps
    assert (removal(removed) in guarded.refused.steps) is not allowed


def test_more_deletions_than_terminations_are_refused() -> None:
    deletions = Plan((Step(DeleteResource("a"), ""), Step(DeleteResource("b"), "")))
    assert guard(deletions, 5, 2, THRESHOLDS).allowed == deletions
    assert guard(deletions, 5, 1, THRESHOLDS).refused == deletions


@pytest.mark.guarantee("Removals are bounded")
def test_removals_that_somebody_allowed_go_through() -> None:
    thresholds = Thresholds(max_removals_percent=Decimal(0), max_removals=0, removals_allowed=True)
    assert guard(Plan((removal(50),)), 50, 0, thresholds).allowed == Plan((removal(50),))
