from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
import pytest

from waldur_site_agent.model.errors import TemporaryError
from waldur_site_agent.model.marketplace import (
    OfferingUserState,
    ProjectRole,
    ProjectTeam,
    TeamMember,
)

if TYPE_CHECKING:
    from unit.waldur.conftest import Scripted

ID = "0b5d0c5e3a5b4c7f8d1e2f3a4b5c6d7e"
OTHER = "ffffffff3a5b4c7f8d1e2f3a4b5c6d7e"


def test_an_order_is_read_with_its_exact_limits_and_aware_times(server: Scripted) -> None:
    server.replies = [
        httpx.Response(
            200,
            json={
                "uuid": ID,
                "type": "Update",
                "state": "executing",
                "created": "2026-11-02T10:00:00.5+02:00",
                "start_date": "2026-12-01",
                "limits": {"cpu": 10.1, "mem": "512", "gres/gpu": 90071992547409931, "node": None},
                "attributes": {"name": "Climate", "old_limits": {"cpu": None}},
            },
        )
    ]
    order = server.waldur().order(ID)
    assert UUID(ID) == order.uuid
    assert datetime(2026, 11, 2, 8, 0, 0, 500_000, tzinfo=UTC) == order.created
    assert date(2026, 12, 1) == order.start_date
    assert {
        "cpu": Decimal("10.1"),
        "mem": Decimal(512),
        "gres/gpu": Decimal(90071992547409931),
        "node": None,
    } == order.limits
    assert order.attributes == {"name": "Climate", "old_limits": {"cpu": None}}


def test_null_means_the_same_as_absent(server: Scripted) -> None:
    everything_null = dict.fromkeys(
        ["name", "slug", "backend_id", "limits", "backend_metadata", "paused", "last_sync", "state"]
    )
    server.replies = [
        httpx.Response(200, json={"uuid": ID, **everything_null}),
        httpx.Response(200, json={"uuid": ID}),
    ]
    waldur = server.waldur()
    assert waldur.resource(ID) == waldur.resource(ID)


def test_nulls_inside_listed_objects_mean_absent_too(server: Scripted) -> None:
    component = {"type": "cpu", "uuid": OTHER, "description": None, "limit_amount": None}
    server.replies = [httpx.Response(200, json={"uuid": ID, "components": [component]})]
    (found,) = server.waldur().offering(ID).components
    assert (found.type, found.description, found.limit_amount) == ("cpu", "", None)


def test_what_is_new_is_ignored_or_kept_as_text(server: Scripted) -> None:
    order = {"uuid": ID, "type": "Restore", "state": "pending-moon-phase", "colour": {"red": 1}}
    server.replies = [httpx.Response(200, json=order)]
    read = server.waldur().order(ID)
    assert (read.type, read.state) == ("Restore", "pending-moon-phase")


def test_an_offering_user_of_an_old_server_counts_as_usable(server: Scripted) -> None:
    row = {"uuid": ID, "user_uuid": OTHER, "username": "ada"}
    server.replies = [server.page([row], 1)]
    (user,) = server.waldur().offering_users(ID).items
    assert user.state == OfferingUserState.OK


@pytest.mark.parametrize(
    ("state", "username", "kept"),
    [("OK", "ada", ""), ("OK", "", "Ada Lovelace"), ("Creating", "ada", "Ada Lovelace")],
)
def test_full_names_are_kept_of_users_who_are_not_settled(
    server: Scripted, state: str, username: str, kept: str
) -> None:
    row = {"uuid": ID, "user_uuid": OTHER, "username": username, "state": state}
    server.replies = [server.page([{**row, "user_full_name": "Ada Lovelace"}], 1)] * 2
    (user,) = server.waldur().offering_users(ID, whole=False).items
    assert (user.username, user.user_full_name) == (username, kept)
    (whole,) = server.waldur().offering_users(ID).items
    assert whole.user_full_name == "Ada Lovelace"


@pytest.mark.parametrize("limit", ["NaN", "Infinity"])
def test_a_limit_that_is_no_number_is_a_bad_answer(server: Scripted, limit: str) -> None:
    body = f'{{"uuid": "{ID}", "limits": {{"cpu": {limit}}}}}'
    server.replies = [httpx.Response(200, content=body.encode())]
    with pytest.raises(TemporaryError, match=r"limits\.cpu"):
        server.waldur().resource(ID)


def member(name: str, ends: datetime | None) -> dict[str, object]:
    return {"uuid": ID, "username": name, "expiration_time": ends and ends.isoformat()}


def test_a_role_past_its_end_gives_no_place_in_the_team(server: Scripted) -> None:
    now = datetime.now(UTC)
    team = [
        member("ada", None),
        member("bob", now - timedelta(days=1)),
        member("eve", now + timedelta(days=1)),
        member("joe", datetime(2020, 1, 1)),  # noqa: DTZ001 - a server that sends no time zone
    ]
    server.replies = [httpx.Response(200, json=team)]
    assert [person.username for person in server.waldur().team(ID)] == ["ada", "eve"]


def test_a_team_that_came_in_part_is_not_a_team(server: Scripted) -> None:
    server.replies = [server.page([member("ada", None)], 11)]
    with pytest.raises(TemporaryError, match="1 of 11"):
        server.waldur().team(ID)


def test_project_roles_past_their_end_are_left_out_of_a_complete_list(server: Scripted) -> None:
    rows = [
        {"project_uuid": ID, "user_uuid": OTHER, "role_name": "PROJECT.MEMBER"},
        {"project_uuid": ID, "user_uuid": OTHER, "role_name": "PROJECT.ADMIN"},
        {"project_uuid": ID, "user_uuid": ID, "expiration_time": "2020-01-01T00:00:00Z"},
    ]
    server.replies = [server.page(rows, 3)]
    roles = server.waldur().project_roles(ID).require_complete("roles")
    assert [role.role_name for role in roles] == ["PROJECT.MEMBER", "PROJECT.ADMIN"]
    assert server.requests[0].url.params["is_active"] == "true"


def test_settings_that_resources_share_are_told_apart_by_type(server: Scripted) -> None:
    notes = [{"n": 1}, {"n": True}, {"n": 1.0}, {"n": [1]}, {"n": [1]}, {"n": 1}, {}]
    rows = [
        {"uuid": f"{number:032x}", "backend_metadata": each} for number, each in enumerate(notes)
    ]
    server.replies = [server.page(rows, len(rows))]
    found = [each.backend_metadata for each in server.waldur().resources(ID).items]
    assert [repr(each) for each in found] == [repr(each) for each in notes]


def test_the_team_of_a_project_is_what_its_roles_say() -> None:
    end = datetime(2027, 1, 1, tzinfo=UTC)
    roles = [
        ProjectRole(project_uuid=UUID(ID), user_uuid=UUID(OTHER), role_name="PROJECT.MEMBER"),
        ProjectRole(project_uuid=UUID(ID), user_uuid=UUID(ID), expiration_time=end),
    ]
    team = ProjectTeam(roles)
    members = [
        TeamMember(uuid=UUID(OTHER), role="PROJECT.MEMBER"),
        TeamMember(uuid=UUID(ID), expiration_time=end),
    ]
    assert (len(team), list(team)) == (2, members)
    assert members[0] in team
    assert TeamMember(uuid=UUID(ID), role="PROJECT.MEMBER") not in team


def test_an_account_of_a_project_may_have_no_username_and_no_project(server: Scripted) -> None:
    pending = {"uuid": ID, "state": "Pending", "username": None, "project_uuid": OTHER}
    orphan = {"uuid": OTHER, "state": "Closed", "username": "svc", "project_uuid": None}
    server.replies = [server.page([pending, orphan], 2)]
    first, second = server.waldur().course_accounts(ID).require_complete("course accounts")
    assert (first.username, first.state, first.project_uuid) == ("", "Pending", UUID(OTHER))
    assert (second.username, second.state, second.project_uuid) == ("svc", "Closed", None)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"https://waldur.example.com/api/marketplace-resources/{OTHER}/", UUID(OTHER)),
        (f"https://waldur.example.com/api/marketplace-resources/{UUID(OTHER)}/", UUID(OTHER)),
        (f"/api/marketplace-resources/{OTHER}?format=json", UUID(OTHER)),
        (OTHER, UUID(OTHER)),
        ("https://waldur.example.com/api/marketplace-resources/17/", None),
        ("", None),
        (None, None),
    ],
)
def test_a_limit_of_one_user_belongs_to_what_its_urls_end_in(
    server: Scripted, url: str | None, expected: UUID | None
) -> None:
    row = {"uuid": ID, "resource": url, "user": url, "component_type": "cpu", "limit": "10.50"}
    server.replies = [server.page([row], 1)]
    (limit,) = server.waldur().user_limits(ID).require_complete("limits")
    assert (limit.resource_uuid, limit.offering_user_uuid) == (expected, expected)
    assert (limit.component_type, limit.limit) == ("cpu", Decimal("10.50"))


def test_limits_of_users_are_as_complete_as_their_list(server: Scripted) -> None:
    row = {"uuid": ID, "component_type": "cpu", "limit": "1"}
    server.replies = [server.page([row], 2), server.page([], 2)]
    limits = server.waldur().user_limits(ID)
    assert (len(limits.items), limits.complete) == (1, False)


def test_policies_of_other_offerings_are_dropped(server: Scripted) -> None:
    rows = [{"uuid": ID, "scope_uuid": ID}, {"uuid": OTHER, "scope_uuid": OTHER}]
    server.replies = [server.page(rows, 2)]
    (policy,) = server.waldur().periodic_policies(ID).require_complete("policies")
    assert (policy.uuid, policy.scope_uuid) == (UUID(ID), UUID(ID))


def test_an_offering_user_is_read_with_the_names_that_a_username_is_made_of(
    server: Scripted,
) -> None:
    row = {
        "uuid": ID,
        "user_uuid": OTHER,
        "username": None,
        "state": "Pending account linking",
        "user_first_name": "Ada",
        "user_last_name": "Lovelace",
        "user_email": None,
        "service_provider_comment": "Link it",
        "service_provider_comment_url": "https://example.com/",
        "modified": "2026-11-02T10:00:00Z",
    }
    server.replies = [httpx.Response(200, json=row)]
    user = server.waldur().offering_user(ID)
    assert (user.username, user.user_first_name, user.user_last_name, user.user_email) == (
        "",
        "Ada",
        "Lovelace",
        "",
    )
    assert user.state == OfferingUserState.PENDING_ACCOUNT_LINKING
    assert (user.service_provider_comment, user.service_provider_comment_url) == (
        "Link it",
        "https://example.com/",
    )
    assert user.modified == datetime(2026, 11, 2, 10, tzinfo=UTC)
    asked = server.requests[0].url.params.get_list("field")
    assert {"user_first_name", "user_last_name", "user_email", "modified"} < {*asked}
