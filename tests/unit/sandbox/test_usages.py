"""Reports of usage: what is taken, what is refused, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from waldur_site_agent_sandbox import Resource, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import httpx

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]

USAGES = "marketplace-component-usages/"
USER_USAGES = "marketplace-component-user-usages/"


def running(sandbox: Sandbox) -> Resource:
    """The climate project's resource in the demo, which counts cpu, mem and, by usage, gpu."""
    resource = sandbox.customer.resource_of(sandbox.fill_demo().orders[0])
    return sandbox.customer.edit(resource, state="OK")


@pytest.fixture
def resource(sandbox: Sandbox) -> Resource:
    return running(sandbox)


def report(
    api: httpx.Client, resource: Resource, date: str | None = None, /, **amounts: object
) -> httpx.Response:
    """Report amounts of components, ``gpu`` for ``gres/gpu``."""
    names = {"gpu": "gres/gpu"}
    usages = [{"type": names.get(name, name), "amount": each} for name, each in amounts.items()]
    body: dict[str, object] = {"resource": resource.uuid, "usages": usages}
    return api.post(f"{USAGES}set_usage/", json=body | ({"date": date} if date else {}))


def last_month(sandbox: Sandbox) -> str:
    first = sandbox.clock.now().replace(day=1, hour=0)
    return (first - timedelta(hours=1)).isoformat()


def usage_uuid(sandbox: Sandbox, resource: Resource, component: str = "cpu") -> str:
    rows = sandbox.customer.usage_rows(resource)
    return next(row.uuid for row in rows if row.component_type == component)


def test_a_report_replaces_the_months_value_and_may_be_lower_or_negative(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    first = report(api, resource, cpu="11", gpu=3)
    assert (first.status_code, first.content) == (201, b"")
    assert report(api, resource, cpu="-4.5").status_code == 201
    assert sandbox.customer.usages(resource) == {
        "cpu": Decimal("-4.50"),
        "gres/gpu": Decimal("3.00"),
    }
    assert len(sandbox.customer.usage_rows(resource)) == 2


def test_amounts_are_printed_as_texts_with_two_decimals(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    report(api, resource, cpu=11)
    month = sandbox.clock.now().date().replace(day=1).isoformat()
    query = {"offering_uuid": sandbox.offering.uuid, "billing_period": month}
    (row,) = api.get(USAGES, params=query).json()
    assert ("11.00", month, "cpu") == (row["usage"], row["billing_period"], row["type"])
    assert resource.uuid == row["resource_uuid"]
    assert api.get(USAGES, params={"billing_period": "2001-01-01"}).json() == []
    assert api.get(USAGES, params={"billing_period": "november"}).status_code == 400


PLACES = "Ensure that there are no more than 2 decimal places."
DIGITS = "Ensure that there are no more than 20 digits in total."


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ({"cpu": "1.234"}, {"usages": [{"amount": [PLACES]}]}),
        ({"cpu": 1, "mem": "NaN"}, {"usages": [{}, {"amount": ["A valid number is required."]}]}),
        ({"cpu": "1" * 21}, {"usages": [{"amount": [DIGITS]}]}),
        ({"cpu": 1, "zzz": 2}, {"non_field_errors": ["These components are invalid: zzz."]}),
    ],
)
def test_a_report_with_one_bad_item_stores_nothing(
    sandbox: Sandbox,
    api: httpx.Client,
    resource: Resource,
    amounts: dict[str, object],
    expected: object,
) -> None:
    answer = report(api, resource, **amounts)
    assert (400, expected) == (answer.status_code, answer.json())
    assert sandbox.customer.usages(resource) == {}


AT_WORK, NOT_AT_WORK = ("OK", "Updating", "Terminating"), ("Creating", "Erred", "Terminated")


@pytest.mark.parametrize(
    ("state", "status"),
    [*((state, 201) for state in AT_WORK), *((state, 400) for state in NOT_AT_WORK)],
)
def test_only_resources_at_work_take_reports(
    sandbox: Sandbox, api: httpx.Client, resource: Resource, state: str, status: int
) -> None:
    sandbox.customer.edit(resource, state=state)
    answer = report(api, resource, cpu=1)
    assert answer.status_code == status
    if status == 400:
        assert answer.json() == {"resource": ["Resource is not in valid state."]}


def test_an_unknown_resource_is_a_bad_value(api: httpx.Client) -> None:
    body = {"resource": "f" * 32, "usages": []}
    answer = api.post(f"{USAGES}set_usage/", json=body)
    assert (answer.status_code, list(answer.json())) == (400, ["resource"])


def test_reports_need_a_right_that_a_manager_of_the_offering_has(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    manager, stranger = sandbox.customer.add_user("manager"), sandbox.customer.add_user("stranger")
    sandbox.customer.add_offering_role(sandbox.offering, manager)
    body = {"resource": resource.uuid, "usages": [{"type": "cpu", "amount": 1}]}
    statuses = [
        api.post(
            f"{USAGES}set_usage/", json=body, headers={"Authorization": f"Token {user.token}"}
        ).status_code
        for user in (manager, stranger)
    ]
    assert statuses == [201, 403]


def test_a_date_names_the_month_except_where_providers_may_not_look_back(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    before = last_month(sandbox)
    assert report(api, resource, before, cpu=7).status_code == 201
    refused = report(api, resource, before, cpu=8, gpu=1)
    assert refused.status_code == 400
    assert "backfilling past billing periods" in refused.json()["date"][0]
    assert sandbox.customer.usages(resource, before[:7]) == {"cpu": Decimal(7)}
    headers = {"Authorization": f"Token {sandbox.staff().token}"}
    body = {
        "resource": resource.uuid,
        "date": before,
        "usages": [{"type": "gres/gpu", "amount": 1}],
    }
    assert api.post(f"{USAGES}set_usage/", json=body, headers=headers).status_code == 201
    assert sandbox.customer.usages(resource) == {}


def test_old_servers_take_every_report_for_the_present_month(connect: Connect) -> None:
    sandbox = Sandbox("7.7.9")
    resource = running(sandbox)
    with connect(sandbox) as api:
        assert report(api, resource, last_month(sandbox), cpu=7, gpu=1).status_code == 201
    assert len(sandbox.customer.usages(resource)) == 2
    assert sandbox.customer.usages(resource, last_month(sandbox)[:7]) == {}


def test_months_are_cut_in_utc(sandbox: Sandbox, api: httpx.Client, resource: Resource) -> None:
    headers = {"Authorization": f"Token {sandbox.staff().token}"}
    body = {
        "resource": resource.uuid,
        "date": "2026-05-01T01:30:00+02:00",
        "usages": [{"type": "cpu", "amount": 1}],
    }
    assert api.post(f"{USAGES}set_usage/", json=body, headers=headers).status_code == 201
    assert sandbox.customer.usages(resource, "2026-04") == {"cpu": Decimal(1)}


@pytest.mark.parametrize(
    ("version", "expected"),
    [("7.7.9", {"mem": "2"}), ("8.1.3", {"cpu": 1.0, "mem": 2.0})],
)
def test_old_servers_show_the_last_report_alone(
    connect: Connect, version: str, expected: object
) -> None:
    sandbox = Sandbox(version)
    resource = running(sandbox)
    with connect(sandbox) as api:
        report(api, resource, cpu="1")
        report(api, resource, mem="2")
        shown = api.get(f"marketplace-provider-resources/{resource.uuid}/").json()
    assert shown["current_usages"] == expected


def test_a_component_with_an_amount_for_a_period_takes_no_more(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    tape = sandbox.customer.add_component("tape", "usage")
    capped = replace(tape, limit_period="total", limit_amount=10)
    sandbox.customer.edit(sandbox.offering, components=(capped,))
    sandbox.customer.put_usage(resource, "tape", 8, last_month(sandbox)[:7])
    assert report(api, resource, tape=3).status_code == 400
    assert report(api, resource, tape=2).status_code == 201


def test_a_row_of_another_plan_is_billed_beside_the_one_that_reports_change(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    report(api, resource, cpu=5)
    sandbox.customer.put_usage(resource, "cpu", 3, plan_period="earlier")
    report(api, resource, cpu=6)
    amounts = sorted(row["usage"] for row in api.get(USAGES).json())
    assert amounts == ["3.00", "6.00"]
    assert sandbox.customer.usages(resource) == {"cpu": Decimal(9)}


@pytest.mark.parametrize("version", ["8.0.5", "8.1.3"])
def test_parts_of_people_are_stored_together_and_raise_a_total_of_zero(
    connect: Connect, version: str
) -> None:
    sandbox = Sandbox(version)
    resource = running(sandbox)
    with connect(sandbox) as api:
        report(api, resource, cpu=0, mem=1)
        for component in ("cpu", "mem"):
            parts = [{"username": "ada", "usage": "5"}, {"username": "bob", "usage": "6.5"}]
            path = f"{USAGES}{usage_uuid(sandbox, resource, component)}/set_user_usages/"
            assert api.post(path, json={"usages": parts}).status_code == 201
        bad = [{"username": "ada", "usage": "7"}, {"username": "bob", "usage": "1.234"}]
        assert api.post(path, json={"usages": bad}).status_code == 400
        found = api.get(USER_USAGES, params={"username": "BO", "type": "cpu"}).json()
    assert [(row["username"], row["usage"]) for row in found] == [("bob", "6.50")]
    assert sandbox.customer.usages(resource) == {"cpu": Decimal("11.5"), "mem": Decimal(1)}
    assert sandbox.customer.user_usages(resource)["ada"] == {"cpu": Decimal(5), "mem": Decimal(5)}


def test_the_first_report_of_a_person_decides_whose_account_it_is(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    report(api, resource, cpu=5)
    path = f"{USAGES}{usage_uuid(sandbox, resource)}/set_user_usage/"
    accounts = list(sandbox.customer.world.offering_users)
    url = f"{api.base_url}marketplace-offering-users"
    for account in accounts[:2]:
        part = {"username": "x", "usage": 1, "user": f"{url}/{account}/"}
        assert api.post(path, json=part).status_code == 201
    (row,) = api.get(USER_USAGES).json()
    assert row["user"].endswith(f"/{accounts[0]}/")
    assert row["component_usage"].endswith(f"/{usage_uuid(sandbox, resource)}/")
    bad = api.post(path, json={"username": "y", "usage": 1, "user": f"{api.base_url}users/1/"})
    assert (bad.status_code, list(bad.json())) == (400, ["user"])


def test_parts_of_people_go_to_the_month_that_they_name(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    report(api, resource, cpu=5)
    path = f"{USAGES}{usage_uuid(sandbox, resource)}/set_user_usage/"
    before = last_month(sandbox)
    assert api.post(path, json={"username": "x", "usage": 2, "date": before}).status_code == 201
    assert sandbox.customer.user_usages(resource) == {}
    assert sandbox.customer.user_usages(resource, before[:7]) == {"x": {"cpu": Decimal(2)}}
    month = {"component_usage__billing_period": f"{before[:7]}-01"}
    assert [row["username"] for row in api.get(USER_USAGES, params=month).json()] == ["x"]


def test_old_servers_take_the_parts_of_people_one_by_one(connect: Connect) -> None:
    sandbox = Sandbox("8.0.4")
    resource = running(sandbox)
    with connect(sandbox) as api:
        report(api, resource, cpu=0)
        path = f"{USAGES}{usage_uuid(sandbox, resource)}"
        assert api.post(f"{path}/set_user_usages/", json={"usages": []}).status_code == 404
        assert api.post(f"{path}/set_user_usage/", json={"username": "a"}).status_code == 201
    assert sandbox.customer.usages(resource) == {"cpu": Decimal(0)}


def test_usage_is_hidden_from_strangers(
    sandbox: Sandbox, api: httpx.Client, resource: Resource
) -> None:
    report(api, resource, cpu=5)
    headers = {"Authorization": f"Token {sandbox.customer.add_user('stranger').token}"}
    assert api.get(USAGES, headers=headers).json() == []
    path = f"{USAGES}{usage_uuid(sandbox, resource)}/set_user_usage/"
    assert api.post(path, json={"username": "x"}, headers=headers).status_code == 404
