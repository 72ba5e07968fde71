"""Faults on demand, as a client meets it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from harness.patience import patience
from waldur_site_agent_sandbox import Sandbox

if TYPE_CHECKING:
    from waldur_site_agent_sandbox import DemoWorld

APPROVE = "marketplace_orders_approve_by_provider"


@pytest.fixture
def demo(sandbox: Sandbox) -> DemoWorld:
    """Two projects, five people, two create orders."""
    return sandbox.fill_demo()


def approve(api: httpx.Client, demo: DemoWorld) -> httpx.Response:
    return api.post(f"marketplace-orders/{demo.orders[0].uuid}/approve_by_provider/")


def test_a_connection_cut_before_the_effect_has_no_effect(
    sandbox: Sandbox, api: httpx.Client, demo: DemoWorld
) -> None:
    sandbox.faults.add(APPROVE, "cut")
    with pytest.raises(httpx.RemoteProtocolError):
        approve(api, demo)
    assert sandbox.customer.current(demo.orders[0]).state == "pending-provider"
    assert (sandbox.requests[0].status, sandbox.requests[0].answered) == (None, False)


def test_a_lost_answer_has_its_effect(sandbox: Sandbox, api: httpx.Client, demo: DemoWorld) -> None:
    sandbox.faults.add(APPROVE, "lost_answer")
    with pytest.raises(httpx.RemoteProtocolError):
        approve(api, demo)
    assert sandbox.customer.current(demo.orders[0]).state == "executing"
    assert (sandbox.requests[0].status, sandbox.requests[0].answered) == (200, False)


def test_a_client_can_go_on_after_a_cut(
    sandbox: Sandbox, api: httpx.Client, demo: DemoWorld
) -> None:
    sandbox.faults.add("*", "cut", times=2)
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            approve(api, demo)
    assert approve(api, demo).status_code == 200


def test_a_status_takes_the_place_of_the_answer(
    sandbox: Sandbox, api: httpx.Client, demo: DemoWorld
) -> None:
    sandbox.faults.add(APPROVE, "status", status=429, retry_after=7)
    answer = approve(api, demo)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert sandbox.customer.current(demo.orders[0]).state == "pending-provider"


def test_a_page_of_html_takes_the_place_of_the_answer(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.faults.add("users_me_retrieve", "html")
    answer = api.get("users/me/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")


def test_a_fault_happens_as_often_as_it_was_told(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.faults.add("users_me_retrieve", "status", times=2, skip=1, status=502)
    statuses = [api.get("users/me/").status_code for _ in range(5)]
    assert statuses == [200, 502, 502, 200, 200]
    assert sandbox.faults.pending == []


def test_a_fault_without_end_can_be_cleared(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.faults.add("*", "status", times=None)
    statuses = [api.get("users/me/").status_code for _ in range(3)]
    sandbox.faults.clear()
    assert [*statuses, api.get("users/me/").status_code] == [503, 503, 503, 200]


def test_a_fault_leaves_other_operations_alone(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.faults.add("marketplace_orders_*", "status")
    statuses = [api.get(path).status_code for path in ("users/me/", "marketplace-orders/")]
    assert statuses == [200, 503]


@pytest.mark.usefixtures("demo")
def test_a_short_page_has_fewer_rows_than_it_says(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.faults.add("marketplace_offering_users_list", "short_page", rows=2)
    answer = api.get("marketplace-offering-users/")
    assert (len(answer.json()), answer.headers["X-Result-Count"]) == (3, "5")


def test_a_stale_read_shows_the_past(sandbox: Sandbox, api: httpx.Client, demo: DemoWorld) -> None:
    approve(api, demo)
    sandbox.faults.add("marketplace_orders_list", "stale", changes_ago=2)
    states = [{row["state"] for row in api.get("marketplace-orders/").json()} for _ in range(2)]
    assert [{"pending-provider"}, {"executing", "pending-provider"}] == states


def test_stale_lists_count_the_rows_of_then_and_an_object_read_by_itself_is_as_it_is(
    sandbox: Sandbox, api: httpx.Client, demo: DemoWorld
) -> None:
    sandbox.faults.add("*_list", "stale", times=None, changes_ago=2)
    approve(api, demo)
    pending = api.get("marketplace-orders/", params={"state": "pending-provider"})
    assert len(pending.json()) == int(pending.headers["X-Result-Count"])
    shown = {row["uuid"]: row["state"] for row in pending.json()}
    approved = [u for u in shown if api.get(f"marketplace-orders/{u}/").json()["state"] != shown[u]]
    assert len(approved) == 1
    executing = api.get("marketplace-orders/", params={"state": "executing"})
    assert approved[0] not in {row["uuid"] for row in executing.json()}


def test_lists_may_be_of_different_ages(
    sandbox: Sandbox, api: httpx.Client, demo: DemoWorld
) -> None:
    sandbox.faults.add("*_list", "stale", times=None, changes_ago=3, up_to=True)
    approve(api, demo)
    ages = {
        len(api.get("marketplace-orders/", params={"state": "executing"}).json()) for _ in range(40)
    }
    assert len(ages) > 1


def test_the_past_does_not_reach_beyond_the_beginning(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.faults.add("users_me_retrieve", "stale", changes_ago=1000)
    assert api.get("users/me/").status_code == 200


def test_a_slow_answer_outlasts_an_impatient_client(sandbox: Sandbox, api: httpx.Client) -> None:
    sandbox.faults.add("users_me_retrieve", "latency", seconds=60)
    with pytest.raises(httpx.ReadTimeout):
        api.get("users/me/", timeout=httpx.Timeout(patience(), read=0.05))
    assert api.get("users/me/").status_code == 200


def test_a_slow_answer_does_not_hold_up_others_or_the_end() -> None:
    sandbox = Sandbox()
    sandbox.faults.add("users_me_retrieve", "latency", seconds=600)
    headers = {"Authorization": f"Token {sandbox.token}"}
    statuses: list[int] = []
    with sandbox.serve() as url:

        def wait() -> None:
            answer = httpx.get(f"{url}users/me/", headers=headers, timeout=patience())
            statuses.append(answer.status_code)

        slow = threading.Thread(target=wait)
        slow.start()
        assert httpx.get(
            f"{url}marketplace-orders/", headers=headers, timeout=patience()
        ).is_success
        # The slow request may arrive after the quick one: wait until its fault was used.
        deadline = sandbox.clock.now().timestamp() + patience()
        while sandbox.faults.pending and sandbox.clock.now().timestamp() < deadline:
            slow.join(0.01)
    slow.join(patience())
    assert statuses == [200]


def test_an_unknown_fault_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="is not a fault; use one of latency"):
        sandbox.faults.add("*", "earthquake")  # type: ignore[arg-type]  # what a person may type
