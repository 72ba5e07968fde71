"""The gateway and the embedded Waldur, written apart from each other, agree in every operation."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from waldur_site_agent.model.offerings import WaldurComponent
from waldur_site_agent.sandbox import Sandbox
from waldur_site_agent.waldur import (
    AbsentOperationError,
    ConflictError,
    NotFoundError,
    TokenRefusedError,
    Waldur,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = "f" * 32


@pytest.fixture(params=["7.7.9", "8.0.2", "8.1.3"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    sandbox = Sandbox(request.param)
    sandbox.fill_demo()
    return sandbox


@pytest.fixture
def waldur(sandbox: Sandbox) -> Iterator[Waldur]:
    with sandbox.serve() as url, Waldur(url, sandbox.token) as waldur:
        yield waldur


def test_an_order_goes_from_pending_to_done(sandbox: Sandbox, waldur: Waldur) -> None:
    pending = waldur.orders(sandbox.offering.uuid, ["pending-provider"])
    order = pending.require_complete("orders")[0]
    assert order.marketplace_resource_uuid is not None

    waldur.approve_order(order.uuid)
    assert waldur.order(order.uuid).state == "executing"
    waldur.set_backend_id(order.marketplace_resource_uuid, "hpc_first")
    waldur.complete_order(order.uuid)

    (resource,) = waldur.resources_named("hpc_first").require_complete("resources")
    assert (resource.uuid, resource.state) == (order.marketplace_resource_uuid, "OK")
    with pytest.raises(ConflictError, match="Valid states"):
        waldur.complete_order(order.uuid)


def test_a_resource_keeps_what_it_is_told(sandbox: Sandbox, waldur: Waldur) -> None:
    resource = waldur.resources(sandbox.offering.uuid).require_complete("resources")[0]
    waldur.set_limits(resource.uuid, {"cpu": Decimal(5), "mem": Decimal("2.5")})
    waldur.set_backend_metadata(resource.uuid, {"qos": "normal"})
    waldur.refresh_last_sync(resource.uuid)
    waldur.set_as_erred(resource.uuid, "the account is gone")
    assert waldur.resource(resource.uuid).state == "Erred"
    waldur.set_as_ok(resource.uuid)

    told = waldur.resource(resource.uuid)
    assert told.limits == {"cpu": Decimal(5), "mem": Decimal("2.5")}
    assert told.backend_metadata == {"qos": "normal"}
    assert told.state == "OK"


def test_orders_that_cannot_be_carried_out_say_why(sandbox: Sandbox, waldur: Waldur) -> None:
    first, second = waldur.orders(sandbox.offering.uuid, ["pending-provider"]).items[:2]
    waldur.reject_order(first.uuid, "the machine is full")
    waldur.approve_order(second.uuid)
    waldur.fail_order(second.uuid, "the project has no slug")
    assert waldur.order(first.uuid).state == "rejected"
    failed = waldur.order(second.uuid)
    assert (failed.state, failed.error_message) == ("erred", "the project has no slug")


def test_a_component_is_made_and_changed(sandbox: Sandbox, waldur: Waldur) -> None:
    offering = sandbox.offering.uuid
    gpu = WaldurComponent(type="gpu", name="GPU", billing_type="limit", measured_unit="hours")
    waldur.create_component(offering, gpu)
    (made,) = [c for c in waldur.offering(offering).components if c.type == "gpu"]
    changed = WaldurComponent(
        uuid=made.uuid, type="gpu", name="GPU", billing_type="limit", measured_unit="k-Hours"
    )
    waldur.update_component(offering, changed)
    (read,) = [c for c in waldur.offering(offering).components if c.type == "gpu"]
    assert read.measured_unit == "k-Hours"


def test_team_and_bulk_roles_name_the_same_people(sandbox: Sandbox, waldur: Waldur) -> None:
    customer = waldur.offering(sandbox.offering.uuid).customer_uuid
    assert customer is not None
    (provider,) = waldur.service_providers(customer).require_complete("providers")
    roles = waldur.project_roles(provider.uuid).require_complete("roles")
    for resource in waldur.resources(sandbox.offering.uuid).items:
        in_bulk = {r.user_uuid for r in roles if r.project_uuid == resource.project_uuid}
        assert {member.uuid for member in waldur.team(resource.uuid)} == in_bulk != set()


def test_who_asks_and_who_is_asked_are_known(sandbox: Sandbox, waldur: Waldur) -> None:
    assert waldur.whoami().username == sandbox.agent.username
    assert waldur.server_version() == sandbox.server_version
    assert waldur.offering_users(sandbox.offering.uuid).complete


def test_refusals_are_told_apart(sandbox: Sandbox, waldur: Waldur) -> None:
    with pytest.raises(NotFoundError):
        waldur.order(NOBODY)
    with (
        Waldur(waldur.base_url, "nonsense") as stranger,
        pytest.raises(TokenRefusedError, match="Invalid token"),
    ):
        stranger.orders(sandbox.offering.uuid, ["executing"])


def test_an_operation_that_came_later_is_absent_before(sandbox: Sandbox, waldur: Waldur) -> None:
    order = waldur.orders(sandbox.offering.uuid, ["pending-provider"]).items[0]
    if sandbox.server_version == "7.7.9":
        with pytest.raises(AbsentOperationError):
            waldur.set_order_backend_id(order.uuid, "ours")
    else:
        waldur.set_order_backend_id(order.uuid, "ours")
        assert waldur.order(order.uuid).backend_id == "ours"
