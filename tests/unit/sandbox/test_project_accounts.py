"""Service accounts and course accounts of projects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from waldur_site_agent_sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import httpx

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]


def provider_path(sandbox: Sandbox, kind: str) -> str:
    return f"marketplace-service-providers/{sandbox.provider.service_provider}/{kind}_accounts/"


def offering_path(sandbox: Sandbox, kind: str) -> str:
    return f"marketplace-provider-offerings/{sandbox.offering.uuid}/list_{kind}_accounts/"


def usernames(api: httpx.Client, path: str, **query: str) -> list[str | None]:
    answer = api.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return [row["username"] for row in answer.json()]


def test_both_lists_name_the_accounts_of_projects_that_bought_something(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    demo = sandbox.fill_demo()
    sandbox.customer.add_service_account(demo.climate, "svc-climate")
    sandbox.customer.add_course_account("physics", "course-physics")
    idle = sandbox.customer.add_project("Idle", demo.customer)
    sandbox.customer.add_service_account(idle, "svc-idle")
    for path in (provider_path, offering_path):
        assert usernames(api, path(sandbox, "project_service")) == ["svc-climate"]
        assert usernames(api, path(sandbox, "course")) == ["course-physics"]


def test_an_account_leaves_the_lists_with_the_last_resource_of_its_project(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    demo = sandbox.fill_demo()
    sandbox.customer.add_service_account(demo.climate, "svc")
    sandbox.customer.edit(sandbox.customer.resource_of(demo.orders[0]), state="Terminated")
    assert usernames(api, provider_path(sandbox, "project_service")) == []


def test_an_offering_lists_only_accounts_of_projects_that_use_it(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    demo = sandbox.fill_demo()
    sandbox.customer.add_service_account(demo.climate, "svc")
    other = sandbox.customer.add_offering("Second", sandbox.provider)
    path = f"marketplace-provider-offerings/{other.uuid}/list_project_service_accounts/"
    assert usernames(api, path) == []
    assert usernames(api, provider_path(sandbox, "project_service")) == ["svc"]


def test_a_closed_account_stays_listed_and_can_be_opened_again(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    demo = sandbox.fill_demo()
    account = sandbox.customer.add_service_account(demo.climate, "svc")
    states = []
    for state in ("Closed", "OK"):
        sandbox.customer.set_project_account_state("svc", state)
        (row,) = api.get(provider_path(sandbox, "project_service")).json()
        states.append(row["state"])
    assert states == ["Closed", "OK"]
    assert sandbox.customer.current(account).modified > account.modified


def test_a_pending_course_account_is_listed_without_a_username(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    demo = sandbox.fill_demo()
    sandbox.customer.add_course_account(demo.climate, None, "Pending")
    assert usernames(api, provider_path(sandbox, "course")) == [None]
    sandbox.customer.add_service_account(demo.climate, "")
    assert usernames(api, provider_path(sandbox, "project_service")) == []


@pytest.mark.parametrize("state", ["Pending", "ok", "Sleeping"])
def test_a_state_that_the_release_does_not_have_is_refused(state: str) -> None:
    sandbox = Sandbox("7.7.9")
    demo = sandbox.fill_demo()
    with pytest.raises(ValueError, match="OK, Closed, Erred"):
        sandbox.customer.add_course_account(demo.climate, "course", state)


def test_the_providers_lists_can_be_filtered_and_come_in_pages(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    demo = sandbox.fill_demo()
    for number in range(12):
        project = (demo.climate, demo.physics)[number % 2]
        account = sandbox.customer.add_service_account(project, f"svc{number}")
    sandbox.customer.set_project_account_state(account, "Closed")
    path = provider_path(sandbox, "project_service")
    assert len(usernames(api, path)) == 10
    assert usernames(api, path, page="2") == ["svc10", "svc11"]
    assert usernames(api, path, state="Closed") == ["svc11"]
    assert len(usernames(api, path, project_uuid=demo.climate.uuid)) == 6
    assert usernames(api, path, username="svc3") == ["svc3"]
    assert api.get(path, params={"state": "Pending"}).status_code == 400


def test_these_lists_print_every_field_whatever_is_asked_for(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    demo = sandbox.fill_demo()
    sandbox.customer.add_course_account(demo.climate, "course")
    (row,) = api.get(provider_path(sandbox, "course"), params={"field": "uuid"}).json()
    assert (row["project_uuid"], row["project_slug"]) == (demo.climate.uuid, "climate")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("7.7.5", (404, 404, 404, 404)),
        ("7.7.6", (200, 404, 404, 404)),
        ("7.7.8", (200, 200, 404, 404)),
        ("7.8.8", (200, 200, 200, 200)),
    ],
)
def test_the_lists_came_one_after_the_other(
    connect: Connect, version: str, expected: tuple[int, ...]
) -> None:
    sandbox = Sandbox(version)
    paths = [
        path(sandbox, kind)
        for path in (provider_path, offering_path)
        for kind in ("project_service", "course")
    ]
    with connect(sandbox) as api:
        assert expected == tuple(api.get(path).status_code for path in paths)
