"""The accounts that people have at an offering."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent_sandbox import OfferingUser, RefusedError, Sandbox
from waldur_site_agent_sandbox.states import STATES, TRANSITIONS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import httpx

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]

PATH = "marketplace-offering-users/"


def account_in(sandbox: Sandbox, state: str = "Requested", username: str = "") -> OfferingUser:
    person = sandbox.customer.add_user("ada", "Ada Lovelace")
    return sandbox.customer.set_account(person, username, state)


def call(
    api: httpx.Client, account: OfferingUser, action: str, body: object = None
) -> httpx.Response:
    return api.post(f"{PATH}{account.uuid}/{action}/", json=body)


@pytest.mark.parametrize(("version", "state"), [("7.7.9", "Creating"), ("8.1.3", "OK")])
def test_a_username_completes_an_account_on_new_servers(
    connect: Connect, version: str, state: str
) -> None:
    sandbox = Sandbox(version)
    account = account_in(sandbox)
    with connect(sandbox) as api:
        call(api, account, "begin_creating")
        answer = api.patch(f"{PATH}{account.uuid}/", json={"username": "ada01"})
    assert ("ada01", state) == (answer.json()["username"], answer.json()["state"])


def test_setting_ok_what_is_ok_is_refused_with_the_number_of_the_state(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    answer = call(api, account_in(sandbox, "OK"), "set_ok")
    assert answer.status_code == 400
    detail = answer.json()["detail"]
    assert detail.startswith("Cannot transition to OK from current state: 5. Valid states")


def test_a_transition_starts_from_its_states_only(sandbox: Sandbox, api: httpx.Client) -> None:
    account = account_in(sandbox)
    for action, transition in TRANSITIONS.items():
        for state in STATES:
            sandbox.customer.edit(account, state=state)
            allowed = state in transition.sources
            answer = call(api, account, action)
            assert answer.status_code == (200 if allowed else 400), f"{action} from {state}"
            expected = transition.target if allowed else state
            assert sandbox.customer.current(account).state == expected


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("7.7.2", set[str]()),
        ("7.7.3", {"set_pending_account_linking", "set_validation_complete"}),
        ("7.7.4", {"set_pending_account_linking", "set_validation_complete", "set_ok"}),
        ("7.7.5", {*TRANSITIONS}),
    ],
)
def test_the_calls_came_one_after_the_other(
    connect: Connect, version: str, known: set[str]
) -> None:
    sandbox = Sandbox(version)
    account = account_in(sandbox)
    asked = {"set_pending_account_linking", "set_validation_complete", "set_ok", "set_deleted"}
    with connect(sandbox) as api:
        found = {action for action in asked if call(api, account, action).status_code != 404}
    assert known & asked == found


def test_a_user_is_told_why_and_where_to_act(sandbox: Sandbox, api: httpx.Client) -> None:
    account = account_in(sandbox, "Creating")
    note = {"comment": "Link your account", "comment_url": "https://site.example.org/link"}
    call(api, account, "set_pending_account_linking", note)
    told = api.get(f"{PATH}{account.uuid}/").json()
    call(api, account, "set_validation_complete")
    cleared = api.get(f"{PATH}{account.uuid}/").json()
    assert told["service_provider_comment_url"] == "https://site.example.org/link"
    assert (cleared["state"], cleared["service_provider_comment"]) == ("OK", "")


def test_usernames_may_be_long_but_not_longer_than_100(sandbox: Sandbox, api: httpx.Client) -> None:
    account = account_in(sandbox)
    statuses = [
        api.patch(f"{PATH}{account.uuid}/", json={"username": "x" * length}).status_code
        for length in (100, 101)
    ]
    assert statuses == [200, 400]


def test_two_people_may_have_the_same_username(sandbox: Sandbox, api: httpx.Client) -> None:
    first = account_in(sandbox, "OK", "shared")
    second = sandbox.customer.set_account(sandbox.customer.add_user("bob"), "", "Requested")
    api.patch(f"{PATH}{second.uuid}/", json={"username": "shared"})
    assert first.username == sandbox.customer.current(second).username


def test_accounts_are_found_by_waldur_username_whatever_its_case(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    account_in(sandbox, "OK", "uni-ada")
    found = [
        len(api.get(PATH, params={"user_username": name}).json()) for name in ("ADA", "uni-ada")
    ]
    assert found == [1, 0]


def test_a_query_does_not_search_uuids(sandbox: Sandbox, api: httpx.Client) -> None:
    account_in(sandbox, "OK", "uni-ada")
    found = [
        len(api.get(PATH, params={"query": text}).json())
        for text in ("lovelace", sandbox.offering.uuid)
    ]
    assert found == [1, 0]


def test_members_get_accounts_without_names_when_their_project_orders(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    university = sandbox.customer.add_customer("University")
    project = sandbox.customer.add_project("Climate", university)
    sandbox.customer.add_member(project, sandbox.customer.add_user("ada"))
    sandbox.customer.place_create_order(project, "Ocean")
    sandbox.customer.add_member(project, sandbox.customer.add_user("late"))
    rows = api.get(PATH).json()
    assert {("ada", "", "Requested"), ("late", "", "Requested")} == {
        (row["user_username"], row["username"], row["state"]) for row in rows
    }


def test_the_oldest_servers_make_accounts_when_the_order_is_done(connect: Connect) -> None:
    sandbox = Sandbox("7.0.7")
    university = sandbox.customer.add_customer("University")
    project = sandbox.customer.add_project("Climate", university)
    sandbox.customer.add_member(project, sandbox.customer.add_user("ada"))
    order = sandbox.customer.place_create_order(project, "Ocean")
    counts = []
    with connect(sandbox) as api:
        for action in ("approve_by_provider", "set_state_done"):
            api.post(f"marketplace-orders/{order.uuid}/{action}/")
            counts.append(len(api.get(PATH).json()))
        assert "state" not in api.get(PATH).json()[0]
    assert counts == [0, 1]


def test_nobody_sees_accounts_of_an_offering_that_makes_none(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    account_in(sandbox, "OK", "ada")
    sandbox.customer.edit(sandbox.offering, plugin_options={})
    assert api.get(PATH).json() == []


def test_a_member_who_leaves_keeps_the_account_unless_the_offering_says_so(
    sandbox: Sandbox,
) -> None:
    demo = sandbox.fill_demo()
    sandbox.customer.remove_member(demo.climate, "ada")
    options = {**sandbox.offering.plugin_options, "offering_user_auto_deletion": True}
    sandbox.customer.edit(sandbox.offering, plugin_options=options)
    sandbox.customer.remove_member(demo.climate, "grace")
    sandbox.customer.remove_member(demo.climate, "alan")
    accounts = {row.username: row.state for row in sandbox.customer.world.offering_users.values()}
    assert (
        accounts["ada"],
        accounts["grace"],
        accounts["alan"],
    ) == ("OK", "Requested deletion", "OK")


def test_a_member_who_returns_gets_the_account_back(sandbox: Sandbox) -> None:
    demo = sandbox.fill_demo()
    account = sandbox.customer.set_account("grace", state="Requested deletion")
    sandbox.customer.add_member(demo.physics, "grace")
    assert sandbox.customer.current(account).state == "OK"


def test_a_deletion_is_asked_for_of_an_account_that_is_ok(sandbox: Sandbox) -> None:
    sandbox.fill_demo()
    assert sandbox.customer.request_deletion("ada").state == "Requested deletion"
    with pytest.raises(RefusedError, match="Cannot transition"):
        sandbox.customer.request_deletion("ada")


def test_new_servers_tell_first_and_last_name(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.customer.set_account(sandbox.customer.add_user("jvn", "Jan van Noord", "j@example.org"))
    (row,) = api.get(PATH).json()
    told = (row["user_first_name"], row["user_last_name"], row["user_email"])
    assert told == ("Jan", "van Noord", "j@example.org")


def test_an_account_can_be_restricted(sandbox: Sandbox, api: httpx.Client) -> None:
    account = account_in(sandbox, "OK", "ada")
    call(api, account, "update_restricted", {"is_restricted": True})
    assert len(api.get(PATH, params={"is_restricted": "true"}).json()) == 1
    assert call(api, account, "update_restricted", {}).status_code == 400


@given(names=st.lists(st.text(max_size=100), max_size=5))
def test_any_username_is_kept_as_it_is(names: list[str]) -> None:
    sandbox = Sandbox()
    for number, name in enumerate(names):
        person = sandbox.customer.add_user(f"user{number}")
        sandbox.customer.set_account(person, name)
    stored = [row.username for row in sandbox.customer.world.offering_users.values()]
    assert names == stored
