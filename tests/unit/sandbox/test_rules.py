"""What holds after any sequence of calls, however senseless."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waldur_site_agent_sandbox import RefusedError, Resource, Sandbox, states
from waldur_site_agent_sandbox.store import Transaction

VERSIONS = ("7.7.9", "8.0.0", "8.1.3")

AGENT_CALLS = ("approve", "reject", "execute", "done", "err", "retry", "name", "heal")
CUSTOMER_CALLS = ("create", "update", "terminate", "withdraw")
calls = st.lists(st.sampled_from([*AGENT_CALLS, *CUSTOMER_CALLS, "pause", "resume"]), max_size=25)


def agent_calls(tx: Transaction, call: str, resource: Resource) -> None:
    """Do to the newest order of a resource, or to the resource, what an agent may ask for."""
    if call == "name":
        states.set_resource(tx, resource, backend_id="hpc_ocean")
        return
    if call == "heal":
        states.set_resource_ok(tx, resource)
        return
    orders = tx.world.orders_of(resource.uuid)
    if not orders:
        return
    match call:
        case "approve":
            states.approve(tx, orders[-1], {})
        case "reject":
            states.reject(tx, orders[-1], "")
        case "execute":
            states.set_executing(tx, orders[-1])
        case "done":
            states.set_done(tx, orders[-1])
        case "err":
            states.set_erred(tx, orders[-1], "no space", "")
        case "retry":
            states.retry(tx, orders[-1])


def customer_calls(sandbox: Sandbox, call: str, step: int) -> None:
    resources = list(sandbox.customer.world.resources.values())
    orders = list(sandbox.customer.world.orders.values())
    if call == "create" or not resources:
        sandbox.customer.place_create_order("climate", f"Ocean {step}", {"cpu": step})
    elif call == "update":
        sandbox.customer.place_update_order(resources[-1], {"cpu": step + 1})
    elif call == "terminate":
        sandbox.customer.place_terminate_order(resources[-1])
    elif orders:
        sandbox.customer.withdraw_order(orders[-1])


def play(sandbox: Sandbox, call: str, step: int) -> None:
    if call == "pause":
        sandbox.worker.pause()
    elif call == "resume":
        sandbox.worker.resume()
    elif call in CUSTOMER_CALLS:
        customer_calls(sandbox, call, step)
    else:
        with sandbox._store.change() as tx:
            for resource in list(tx.world.resources.values())[-1:]:
                agent_calls(tx, call, resource)


def accepted(sandbox: Sandbox, call: str, step: int) -> bool:
    try:
        play(sandbox, call, step)
    except RefusedError:
        return False
    return True


def sandbox_with_a_project(version: str) -> Sandbox:
    sandbox = Sandbox(version)
    sandbox.customer.add_project("Climate", sandbox.customer.add_customer("University"), "climate")
    return sandbox


@pytest.mark.parametrize("version", VERSIONS)
@given(sequence=calls)
def test_states_stay_known_and_refusals_change_nothing(version: str, sequence: list[str]) -> None:
    sandbox = sandbox_with_a_project(version)
    for step, call in enumerate(["create", *sequence], start=1):
        before = sandbox.customer.world
        if not accepted(sandbox, call, step):
            assert before == sandbox.customer.world
    sandbox.worker.resume()
    world = sandbox.customer.world
    assert {order.state for order in world.orders.values()} <= {*states.ORDER_STATES}
    assert {each.state for each in world.resources.values()} <= {*states.RESOURCE_STATES}
    assert not sandbox.worker.waiting


@pytest.mark.parametrize("version", VERSIONS)
@given(sequence=calls)
def test_a_done_order_is_undone_only_by_a_reported_error_or_a_late_task(
    version: str, sequence: list[str]
) -> None:
    undoing = {"err"} if version == "8.1.3" else {"resume"}
    sandbox = sandbox_with_a_project(version)
    done: set[str] = set()
    for step, call in enumerate(["create", "approve", "done", *sequence], start=1):
        accepted(sandbox, call, step)
        orders = sandbox.customer.world.orders
        if call not in undoing:
            assert {orders[uuid].state for uuid in done if uuid in orders} <= {"done"}
        done = {uuid for uuid, order in orders.items() if order.state == "done"}
