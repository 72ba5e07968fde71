"""What every call of the sandbox's Waldur has in common: tokens, paths, pages, filters, errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from waldur_site_agent_sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import httpx

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]


@pytest.fixture
def crowd(sandbox: Sandbox) -> Sandbox:
    """25 accounts at the offering."""
    for number in range(25):
        person = sandbox.customer.add_user(f"user{number:02}")
        sandbox.customer.set_account(person)
    return sandbox


def test_a_request_without_a_token_is_refused(api: httpx.Client) -> None:
    del api.headers["Authorization"]
    answer = api.get("users/me/")
    assert (
        answer.status_code,
        answer.json(),
    ) == (401, {"detail": "Authentication credentials were not provided."})


def test_a_request_with_a_wrong_token_is_refused(api: httpx.Client) -> None:
    answer = api.get("users/me/", headers={"Authorization": "Token nonsense"})
    assert (answer.status_code, answer.json()) == (401, {"detail": "Invalid token."})


def test_a_request_with_an_expired_token_is_refused(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.customer.expire_token(sandbox.agent)
    answer = api.get("users/me/")
    assert (answer.status_code, answer.json()) == (401, {"detail": "Token has expired."})


def test_a_token_expires_after_its_lifetime_of_silence(connect: Connect) -> None:
    sandbox = Sandbox(token_lifetime=3600)
    statuses = []
    with connect(sandbox) as api:
        for seconds in (0, 3500, 3500, 3700):
            sandbox.clock.advance(seconds)
            statuses.append(api.get("users/me/").status_code)
    assert statuses == [200, 200, 200, 401]


def test_a_renewed_token_opens_and_the_old_one_does_not(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    sandbox.customer.expire_token(sandbox.agent)
    renewed = sandbox.customer.renew_token(sandbox.agent)
    assert api.get("users/me/").json() == {"detail": "Invalid token."}
    answer = api.get("users/me/", headers={"Authorization": f"Token {renewed.token}"})
    assert answer.status_code == 200


def test_the_version_is_told_to_staff_alone(sandbox: Sandbox, api: httpx.Client) -> None:
    assert api.get("version/").status_code == 403
    staff = {"Authorization": f"Token {sandbox.staff().token}"}
    assert api.get("version/", headers=staff).json()["version"] == "8.1.3"


def test_a_path_without_its_last_slash_is_redirected(api: httpx.Client) -> None:
    answer = api.get("users/me", params={"field": "uuid"})
    assert answer.status_code == 301
    assert answer.headers["Location"] == f"{api.base_url}users/me/?field=uuid"


def test_an_unknown_path_is_an_html_page(api: httpx.Client) -> None:
    answer = api.get("marketplace-inventions/")
    assert (
        answer.status_code,
        answer.headers["Content-Type"].partition(";")[0],
    ) == (404, "text/html")


def test_a_known_path_with_another_method_is_refused(api: httpx.Client) -> None:
    answer = api.put("users/me/")
    assert (answer.status_code, answer.json()) == (405, {"detail": 'Method "PUT" not allowed.'})


def test_broken_json_is_a_validation_error(sandbox: Sandbox, api: httpx.Client) -> None:
    project = sandbox.fill_demo()
    path = f"marketplace-orders/{project.orders[0].uuid}/reject_by_provider/"
    answer = api.post(path, content=b"{nonsense")
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("JSON parse error")


def test_a_uuid_is_taken_with_and_without_dashes_and_given_without(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    dashed = str(UUID(sandbox.offering.uuid))
    given = [
        api.get(f"marketplace-provider-offerings/{uuid}/").json()["uuid"]
        for uuid in (sandbox.offering.uuid, dashed)
    ]
    assert [sandbox.offering.uuid] * 2 == given


def test_a_page_has_ten_rows_unless_asked_otherwise(crowd: Sandbox, api: httpx.Client) -> None:
    answer = api.get("marketplace-offering-users/")
    assert len(answer.json()) == 10
    assert answer.headers["X-Result-Count"] == "25"
    assert len(crowd.customer.world.offering_users) == 25


@pytest.mark.parametrize(("asked", "given"), [("0", 10), ("-5", 10), ("abc", 10), ("3", 3)])
@pytest.mark.usefixtures("crowd")
def test_nonsense_page_sizes_fall_back_to_ten(api: httpx.Client, asked: str, given: int) -> None:
    assert len(api.get("marketplace-offering-users/", params={"page_size": asked}).json()) == given


def test_pages_are_never_longer_than_300_rows(sandbox: Sandbox, api: httpx.Client) -> None:
    for number in range(301):
        sandbox.customer.set_account(sandbox.customer.add_user(f"user{number}"))
    answer = api.get("marketplace-offering-users/", params={"page_size": 1000})
    assert (len(answer.json()), answer.headers["X-Result-Count"]) == (300, "301")


@pytest.mark.usefixtures("crowd")
def test_links_lead_through_all_pages(api: httpx.Client) -> None:
    answer = api.get("marketplace-offering-users/", params={"o": "created"})
    names = [row["username"] for row in answer.json()]
    while "next" in answer.links:
        answer = api.get(answer.links["next"]["url"])
        names += [row["username"] for row in answer.json()]
    assert [f"user{number:02}" for number in range(25)] == names
    assert "prev" in answer.links


@pytest.mark.parametrize("page", ["0", "4", "-1", "x"])
@pytest.mark.usefixtures("crowd")
def test_a_page_that_is_not_there_is_an_error(api: httpx.Client, page: str) -> None:
    answer = api.get("marketplace-offering-users/", params={"page": page})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Invalid page."})


@pytest.mark.usefixtures("crowd")
def test_the_last_page_can_be_asked_for_by_name(api: httpx.Client) -> None:
    assert len(api.get("marketplace-offering-users/", params={"page": "last"}).json()) == 5


def test_an_empty_list_has_one_page(api: httpx.Client) -> None:
    answer = api.get("marketplace-orders/")
    assert (answer.json(), answer.headers["X-Result-Count"]) == ([], "0")
    assert {"first", "last"} == set(answer.links)


@pytest.mark.usefixtures("crowd")
def test_head_gives_the_count_alone(api: httpx.Client) -> None:
    answer = api.head("marketplace-offering-users/")
    assert (answer.headers["X-Result-Count"], answer.content) == ("25", b"")


@pytest.mark.usefixtures("crowd")
def test_unordered_pages_may_repeat_rows_with_equal_names(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    for account in sandbox.customer.world.offering_users.values():
        sandbox.customer.edit(account, username="")
    rows = [
        row["uuid"]
        for page in (1, 2, 3)
        for row in api.get("marketplace-offering-users/", params={"page": page}).json()
    ]
    assert len(rows) == 25
    assert len(set(rows)) < 25


@pytest.mark.usefixtures("crowd")
def test_unknown_parameters_change_nothing(api: httpx.Client) -> None:
    answer = api.get("marketplace-offering-users/", params={"colour": "blue"})
    assert answer.headers["X-Result-Count"] == "25"


@pytest.mark.parametrize(("version", "found"), [("7.0.7", 1), ("7.7.9", 0)])
def test_a_filter_that_an_old_server_lacks_changes_nothing(
    connect: Connect, version: str, found: int
) -> None:
    sandbox = Sandbox(version)
    sandbox.customer.set_account(sandbox.customer.add_user("ada"), state="OK")
    with connect(sandbox) as api:
        answer = api.get("marketplace-offering-users/", params={"state": "Deleted"})
    assert len(answer.json()) == found


@pytest.mark.parametrize(
    ("parameter", "value", "complaint"),
    [
        ("state", "OK", "Select a valid choice. OK is not one of the available choices."),
        ("state", "done,erred", "Select a valid choice. done,erred is not one of the available"),
        ("offering_uuid", "mine", "Enter a valid UUID."),
        ("created", "yesterday", "Enter a valid date/time."),
        ("o", "colour", "Select a valid choice. colour is not one of the available choices."),
    ],
)
def test_a_bad_value_is_refused_by_name(
    api: httpx.Client, parameter: str, value: str, complaint: str
) -> None:
    answer = api.get("marketplace-orders/", params={parameter: value})
    assert answer.status_code == 400
    assert answer.json()[parameter][0].startswith(complaint)


def test_an_unknown_offering_has_no_orders(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.fill_demo()
    answer = api.get("marketplace-orders/", params={"offering_uuid": "0" * 32})
    assert (answer.status_code, answer.json()) == (200, [])


def test_a_repeated_parameter_means_any_of_its_values(sandbox: Sandbox, api: httpx.Client) -> None:
    demo = sandbox.fill_demo()
    api.post(f"marketplace-orders/{demo.orders[0].uuid}/approve_by_provider/")
    found = api.get("marketplace-orders/", params={"state": ["executing", "pending-provider"]})
    assert len(found.json()) == 2


def test_only_the_fields_asked_for_are_given(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.fill_demo()
    rows = api.get("marketplace-orders/", params={"field": ["uuid", "state", "colour"]}).json()
    assert [{"uuid", "state"}] * 2 == [set(row) for row in rows]


def test_fields_that_are_all_unknown_give_everything(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.fill_demo()
    assert "project_slug" in api.get("marketplace-orders/", params={"field": "colour"}).json()[0]


def test_six_approvals_at_once_are_one_approval(sandbox: Sandbox, api: httpx.Client) -> None:
    order = sandbox.fill_demo().orders[0]
    path = f"marketplace-orders/{order.uuid}/approve_by_provider/"
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: api.post(path).status_code, range(6)))
    assert sorted(statuses) == [200, 409, 409, 409, 409, 409]


def test_the_request_log_knows_operations_and_bodies_and_no_tokens(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    order = sandbox.fill_demo().orders[0]
    api.get("marketplace-orders/", params={"state": "executing"})
    api.post(
        f"marketplace-orders/{order.uuid}/reject_by_provider/",
        json={"provider_rejection_comment": "too big"},
    )
    listed, rejected = sandbox.requests
    assert listed.operation == "marketplace_orders_list"
    assert (listed.query, listed.status) == ("state=executing", 200)
    assert rejected.body == {"provider_rejection_comment": "too big"}
    assert [rejected] == sandbox.requests.writes()
    assert sandbox.requests.count("marketplace_orders_*") == 2
    assert sandbox.token not in repr(sandbox.requests.snapshot())


def test_the_request_log_can_be_cleared(sandbox: Sandbox, api: httpx.Client) -> None:
    api.get("users/me/")
    sandbox.requests.clear()
    assert sandbox.requests.count() == 0


def test_a_new_server_sends_fields_that_nobody_knows(api: httpx.Client) -> None:
    assert "shadow_rating" in api.get("users/me/").json()


def test_tokens_are_in_no_answer_of_waldur(sandbox: Sandbox, api: httpx.Client) -> None:
    assert sandbox.token not in api.get("users/me/").text
