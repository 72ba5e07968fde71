"""What becomes of orders that fail, on old servers and on new ones."""

from __future__ import annotations

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
    states,
)
from waldur_site_agent_sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import httpx

    Connect = Callable[[Sandbox], AbstractContextManager[httpx.Client]]


@BOTH
def test_an_error_needs_both_texts(connect: Connect, version: str) -> None:
    sandbox = Sandbox(version)
    order = create_order(sandbox)
    with connect(sandbox) as api:
        call(api, order, "approve_by_provider")
        answers = [call(api, order, "set_state_erred", {}), call(api, order, "set_state_erred")]
    assert [answer.status_code for answer in answers] == [500, 500]
    assert all(answer.headers["Content-Type"].startswith("text/html") for answer in answers)
    assert states(sandbox, order) == ("executing", "Creating")


@pytest.mark.parametrize(("version", "state"), [(OLD, "done"), (NEW, "erred")])
def test_an_error_reported_on_a_done_order_wrecks_its_resource(
    connect: Connect, version: str, state: str
) -> None:
    sandbox = Sandbox(version)
    with connect(sandbox) as api:
        order, _ = finished(sandbox, api)
        assert call(api, order, "set_state_erred", ERROR).status_code == 200
    assert (state, "Erred") == states(sandbox, order)
    assert sandbox.customer.current(order).error_message == "no space"


@pytest.mark.parametrize(
    ("version", "expected"),
    [(OLD, ("pending-provider", "Erred")), (NEW, ("erred", "Terminated"))],
)
def test_an_error_reported_on_a_pending_order_is_not_refused_either(
    connect: Connect, version: str, expected: tuple[str, str]
) -> None:
    sandbox = Sandbox(version)
    order = create_order(sandbox)
    with connect(sandbox) as api:
        assert call(api, order, "set_state_erred", ERROR).status_code == 200
    assert expected == states(sandbox, order)


@pytest.mark.parametrize(("version", "state"), [(OLD, "Erred"), (NEW, "Terminated")])
def test_a_failed_create_without_backend_id_is_gone_on_new_servers(
    connect: Connect, version: str, state: str
) -> None:
    sandbox = Sandbox(version)
    order = create_order(sandbox)
    with connect(sandbox) as api:
        call(api, order, "approve_by_provider")
        call(api, order, "set_state_erred", ERROR)
    assert ("erred", state) == states(sandbox, order)


def test_a_failed_create_with_a_backend_id_is_erred(sandbox: Sandbox, api: httpx.Client) -> None:
    order = create_order(sandbox)
    call(api, order, "approve_by_provider")
    path = f"marketplace-provider-resources/{order.resource}/set_backend_id/"
    api.post(path, json={"backend_id": "hpc_ocean"})
    call(api, order, "set_state_erred", ERROR)
    assert states(sandbox, order) == ("erred", "Erred")


@BOTH
def test_a_failed_termination_leaves_the_resource_ok(connect: Connect, version: str) -> None:
    sandbox = Sandbox(version)
    with connect(sandbox) as api:
        _, resource = finished(sandbox, api)
        end = sandbox.customer.place_terminate_order(resource)
        call(api, end, "approve_by_provider")
        call(api, end, "set_state_erred", ERROR)
    assert states(sandbox, end) == ("erred", "OK")


@BOTH
def test_an_erred_order_can_be_taken_up_again(connect: Connect, version: str) -> None:
    sandbox = Sandbox(version)
    with connect(sandbox) as api:
        _, resource = finished(sandbox, api)
        update = sandbox.customer.place_update_order(resource, {"cpu": 20})
        for action in ("approve_by_provider", "set_state_erred", "set_state_executing"):
            call(api, update, action, ERROR)
        assert call(api, update, "set_state_done").status_code == 200
    assert states(sandbox, update) == ("done", "OK")


def test_a_retry_brings_order_and_resource_back_to_work(
    sandbox: Sandbox, api: httpx.Client
) -> None:
    _, resource = finished(sandbox, api)
    end = sandbox.customer.place_terminate_order(resource)
    for action in ("approve_by_provider", "set_state_erred", "retry"):
        assert call(api, end, action, ERROR).status_code == 200
    assert states(sandbox, end) == ("executing", "Terminating")
    assert sandbox.customer.current(end).error_message == ""
