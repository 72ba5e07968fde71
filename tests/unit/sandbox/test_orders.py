"""The life of an order, as the agent drives it, on old servers and on new ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import pytest

from unit.sandbox.driving import (
    BOTH,
    ERROR,
    NEW,
    OLD,
    call,
    create_order,
    finished,
    project_in,
    states,
)
from waldur_site_agent_sandbox import RefusedError, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import httpx

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]


@BOTH
def test_a_create_order_runs_from_pending_to_done(connect: Connect, version: str) -> None:
    sandbox = Sandbox(version)
    order = create_order(sandbox)
    seen = [states(sandbox, order)]
    with connect(sandbox) as api:
        for action in ("approve_by_provider", "set_state_done"):
            call(api, order, action)
            seen.append(states(sandbox, order))
    assert seen == [
        ("pending-provider", "Creating"),
        ("executing", "Creating"),
        ("done", "OK"),
    ]


@pytest.mark.parametrize(
    ("version", "content"),
    [
        ("7.7.9", b""),
        ("7.9.0", b'"Order has been approved and is being processed."'),
        ("8.0.0", b'"Order has been approved and is being processed."'),
        ("8.0.3", b'{"detail": "Order has been approved and is being processed."}'),
        ("8.1.3", b'{"detail": "Order has been approved and is being processed."}'),
    ],
)
def test_an_approval_is_answered_in_the_manner_of_the_release(
    connect: Connect, version: str, content: bytes
) -> None:
    sandbox = Sandbox(version)
    order = create_order(sandbox)
    with connect(sandbox) as api:
        assert call(api, order, "approve_by_provider").content == content


@pytest.mark.parametrize("action", ["approve_by_provider", "reject_by_provider"])
def test_a_review_needs_an_order_that_waits_for_it(
    sandbox: Sandbox, api: httpx.Client, action: str
) -> None:
    order, _ = finished(sandbox, api)
    answer = call(api, order, action)
    assert answer.status_code == 409
    assert answer.json() == {"detail": "Valid states for operation: pending-provider."}


@pytest.mark.parametrize("state", ["pending-provider", "done", "erred"])
def test_only_an_executing_order_can_be_done(
    sandbox: Sandbox, api: httpx.Client, state: str
) -> None:
    order = sandbox.customer.edit(create_order(sandbox), state=state)
    answer = call(api, order, "set_state_done")
    assert answer.status_code == 409
    assert answer.json() == {"detail": "Valid states for operation: executing."}


def test_attributes_of_an_approval_are_kept(sandbox: Sandbox, api: httpx.Client) -> None:
    order = create_order(sandbox)
    call(api, order, "approve_by_provider", {"attributes": {"queue": "long"}})
    assert sandbox.customer.current(order).attributes["queue"] == "long"


def test_a_rejected_create_order_ends_its_resource(sandbox: Sandbox, api: httpx.Client) -> None:
    order = create_order(sandbox)
    call(api, order, "reject_by_provider", {"provider_rejection_comment": "no"})
    assert states(sandbox, order) == ("rejected", "Terminated")


def test_a_rejected_update_leaves_the_resource_ok(sandbox: Sandbox, api: httpx.Client) -> None:
    _, resource = finished(sandbox, api)
    update = sandbox.customer.place_update_order(resource, {"cpu": 20})
    assert sandbox.customer.current(resource).state == "Updating"
    call(api, update, "reject_by_provider")
    assert states(sandbox, update) == ("rejected", "OK")


@BOTH
def test_an_update_takes_effect_when_it_is_done(connect: Connect, version: str) -> None:
    sandbox = Sandbox(version)
    with connect(sandbox) as api:
        _, resource = finished(sandbox, api)
        update = sandbox.customer.place_update_order(resource, {"cpu": 20, "mem": 1})
        call(api, update, "approve_by_provider")
        before = sandbox.customer.current(resource)
        call(api, update, "set_state_done")
    after = sandbox.customer.current(resource)
    assert (before.state, before.limits) == ("Updating", {"cpu": 10})
    assert (after.state, after.limits) == ("OK", {"cpu": 20, "mem": 1})
    assert update.attributes["old_limits"] == {"cpu": 10}


@pytest.mark.parametrize(("version", "state"), [(OLD, "OK"), (NEW, "Updating")])
def test_an_order_marks_its_resource_at_once_on_new_servers_only(
    connect: Connect, version: str, state: str
) -> None:
    sandbox = Sandbox(version)
    with connect(sandbox) as api:
        _, resource = finished(sandbox, api)
    sandbox.customer.place_update_order(resource, {"cpu": 20})
    assert sandbox.customer.current(resource).state == state


def test_done_before_the_old_server_caught_up_leaves_the_resource_updating(
    connect: Connect,
) -> None:
    sandbox = Sandbox(OLD)
    with connect(sandbox) as api:
        _, resource = finished(sandbox, api)
        update = sandbox.customer.place_update_order(resource, {"cpu": 20})
        sandbox.worker.pause()
        call(api, update, "approve_by_provider")
        call(api, update, "set_state_done")
        assert states(sandbox, update) == ("done", "OK")
        sandbox.worker.resume()
        assert states(sandbox, update) == ("done", "Updating")
        api.post(f"marketplace-provider-resources/{resource.uuid}/set_as_ok/")
    assert states(sandbox, update) == ("done", "OK")


def test_termination_done_before_the_old_server_caught_up_errs_the_order(
    connect: Connect,
) -> None:
    sandbox = Sandbox(OLD)
    with connect(sandbox) as api:
        _, resource = finished(sandbox, api)
        end = sandbox.customer.place_terminate_order(resource)
        sandbox.worker.pause()
        call(api, end, "approve_by_provider")
        call(api, end, "set_state_done")
        assert sandbox.worker.run() == 1
    assert states(sandbox, end) == ("erred", "Terminated")


@pytest.mark.parametrize("action", ["retry", "set_backend_id"])
def test_an_old_server_does_not_know_newer_calls(connect: Connect, action: str) -> None:
    sandbox = Sandbox(OLD)
    order = create_order(sandbox)
    with connect(sandbox) as api:
        answer = call(api, order, action, {"backend_id": "x"})
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/html")


def test_an_order_keeps_a_backend_id(sandbox: Sandbox, api: httpx.Client) -> None:
    order = create_order(sandbox)
    words = [
        call(api, order, "set_backend_id", {"backend_id": "ticket-7"}).json()["status"]
        for _ in range(2)
    ]
    assert words == ["Order backend_id has been changed.", "Order backend_id is not changed."]


@BOTH
def test_a_limit_of_a_usage_component_breaks_every_later_update(
    connect: Connect, version: str
) -> None:
    sandbox = Sandbox(version)
    sandbox.customer.add_component("gpu", "usage")
    with connect(sandbox) as api:
        _, resource = finished(sandbox, api)
        path = f"marketplace-provider-resources/{resource.uuid}/set_limits/"
        assert api.post(path, json={"limits": {"cpu": 10, "gpu": 1}}).status_code == 200
        update = sandbox.customer.place_update_order(resource, {"cpu": 20})
        call(api, update, "approve_by_provider")
        answer = call(api, update, "set_state_done")
    assert answer.status_code == 500
    assert states(sandbox, update) == ("executing", "Updating")


def test_a_component_without_a_price_in_the_plan_breaks_an_update_until_it_has_one(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    sandbox.customer.add_component("disk", "limit", is_priced=False)
    _, resource = finished(sandbox, api)
    update = sandbox.customer.place_update_order(resource, {"cpu": 20, "disk": 5})
    call(api, update, "approve_by_provider")
    for _ in range(2):
        assert call(api, update, "set_state_done").status_code == 500
        assert states(sandbox, update) == ("executing", "Updating")
    offering = sandbox.offering
    priced = tuple(replace(each, is_priced=True) for each in offering.components)
    sandbox.customer.edit(offering, components=priced)
    assert call(api, update, "set_state_done").status_code == 200
    assert states(sandbox, update) == ("done", "OK")


def test_an_update_may_end_within_its_approval(sandbox: Sandbox, api: httpx.Client) -> None:
    _, resource = finished(sandbox, api)
    update = sandbox.customer.place_update_order(resource, {"cpu": 20})
    sandbox.customer.edit(update, fails_at_approval="Can't switch from state '5'")
    assert call(api, update, "approve_by_provider").status_code == 200
    assert sandbox.customer.current(update).state == "erred"
    assert sandbox.customer.current(update).error_message == "Can't switch from state '5'"


@pytest.mark.parametrize("path", ["orders", "provider-resources", "offering-users"])
def test_an_order_of_rows_that_nobody_knows_is_refused(api: httpx.Client, path: str) -> None:
    answer = api.get(f"marketplace-{path}/", params={"o": "colour"})
    assert (answer.status_code, [*answer.json()]) == (400, ["o"])


def test_an_order_with_a_start_date_to_come_waits_for_it(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    order = sandbox.customer.place_create_order(
        project_in(sandbox), "Later", start_date=date(2999, 1, 1)
    )
    answer = call(api, order, "approve_by_provider")
    assert answer.json() == {"detail": "Order is pending start date."}
    assert sandbox.customer.current(order).state == "pending-start-date"
    sandbox.customer.edit(order, start_date=date(2000, 1, 1))
    assert sandbox.customer.current(order).state == "executing"


def test_an_order_of_an_expired_project_cannot_be_approved(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    order = create_order(sandbox)
    sandbox.customer.edit(sandbox.customer.world.projects[order.project], end_date=date(2000, 1, 1))
    answer = call(api, order, "approve_by_provider")
    assert (answer.status_code, answer.json()) == (400, ["Project 'Climate' is expired."])


def test_an_order_of_a_blocked_organization_cannot_be_approved(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    order = create_order(sandbox)
    sandbox.customer.edit(sandbox.customer.world.customer_of(order.project), blocked=True)
    answer = call(api, order, "approve_by_provider")
    assert (
        answer.status_code,
        answer.json(),
    ) == (400, ["Blocked organization is not available."])


def test_an_offering_of_another_type_is_not_for_agents(sandbox: Sandbox, api: httpx.Client) -> None:
    order = create_order(sandbox)
    sandbox.customer.edit(sandbox.offering, type="Marketplace.Rancher")
    call(api, order, "approve_by_provider")
    assert call(api, order, "set_state_erred", ERROR).status_code == 405


def test_a_withdrawn_order_is_gone_and_its_resource_is_not(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    order = create_order(sandbox)
    sandbox.customer.withdraw_order(order)
    answer = api.get(f"marketplace-orders/{order.uuid}/")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not found."})
    resource = api.get(f"marketplace-provider-resources/{order.resource}/").json()
    assert (resource["state"], resource["order_in_progress"]) == ("Creating", None)


def test_one_resource_has_one_order_at_a_time(sandbox: Sandbox, api: httpx.Client) -> None:
    _, resource = finished(sandbox, api)
    update = sandbox.customer.place_update_order(resource, {"cpu": 20})
    sandbox.customer.edit(sandbox.customer.current(resource), state="OK")
    with pytest.raises(RefusedError, match="Pending order for resource already exists"):
        sandbox.customer.place_terminate_order(resource)
    call(api, update, "reject_by_provider")
    assert sandbox.customer.place_terminate_order(resource).state == "pending-provider"


def test_an_order_that_waits_for_the_buyer_cannot_be_approved_by_the_provider(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    order = sandbox.customer.place_create_order(
        project_in(sandbox), "Ocean", state="pending-consumer"
    )
    assert call(api, order, "approve_by_provider").status_code == 409
    sandbox.customer.approve_as_consumer(order)
    assert call(api, order, "approve_by_provider").status_code == 200


def test_an_order_shows_what_the_agent_needs(sandbox: Sandbox, api: httpx.Client) -> None:
    order = create_order(sandbox)
    shown = api.get(f"marketplace-orders/{order.uuid}/").json()
    expected = {
        "uuid": order.uuid,
        "type": "Create",
        "state": "pending-provider",
        "limits": {"cpu": 10},
        "attributes": {"name": "Ocean"},
        "resource_name": "Ocean",
        "marketplace_resource_uuid": order.resource,
        "resource_uuid": None,
        "project_slug": "climate-1",
        "customer_slug": "uni",
        "offering_uuid": sandbox.offering.uuid,
        "start_date": None,
    }
    assert expected == {name: shown[name] for name in expected}


def test_an_old_server_leaves_fields_out(connect: Connect) -> None:
    sandbox = Sandbox(OLD)
    order = create_order(sandbox)
    with connect(sandbox) as api:
        shown = api.get(f"marketplace-orders/{order.uuid}/").json()
    assert not {"backend_id", "start_date", "provider_slug"} & shown.keys()
    assert {"customer_slug", "project_slug"} <= shown.keys()


def test_an_order_of_a_type_that_nobody_knows_is_listed(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    sandbox.customer.edit(create_order(sandbox), type="Relocate", state="pending-weather")
    shown = api.get("marketplace-orders/", params={"field": ["type", "state"]}).json()
    assert shown == [{"type": "Relocate", "state": "pending-weather"}]
