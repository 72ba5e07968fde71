"""The gateway and the embedded Waldur, written apart from each other, agree in every operation."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from waldur_site_agent.model.marketplace import WaldurComponent
from waldur_site_agent.waldur import (
    AbsentOperationError,
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    TokenRefusedError,
    TransitionRefusedError,
    Waldur,
)

if TYPE_CHECKING:
    from waldur_site_agent_sandbox import Sandbox

NOBODY = "f" * 32


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
    order = waldur.orders(sandbox.offering.uuid, ["pending-provider"]).items[0]
    waldur.approve_order(order.uuid)
    waldur.fail_order(order.uuid, "the project has no slug")
    failed = waldur.order(order.uuid)
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
    assert waldur.server_version() == ""  # for the server's staff alone
    with Waldur(waldur.base_url, sandbox.staff().token) as staff:
        assert staff.server_version() == sandbox.server_version
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
    offering = sandbox.offering.uuid
    if sandbox.server_version == "7.7.9":
        with pytest.raises(AbsentOperationError):
            waldur.periodic_policies(offering)
    else:
        assert waldur.periodic_policies(offering).complete


def test_project_accounts_are_the_same_through_provider_and_offering(
    sandbox: Sandbox, waldur: Waldur
) -> None:
    closed = sandbox.customer.add_service_account("climate", "svc")
    sandbox.customer.set_project_account_state(closed, "Closed")
    sandbox.customer.add_course_account("physics", "course")
    customer = waldur.offering(sandbox.offering.uuid).customer_uuid
    assert customer is not None
    (provider,) = waldur.service_providers(customer).require_complete("providers")

    (service,) = waldur.service_accounts(provider.uuid).require_complete("service accounts")
    assert (service.username, service.state) == ("svc", "Closed")
    assert UUID(closed.project) == service.project_uuid
    (course,) = waldur.course_accounts(provider.uuid).require_complete("course accounts")
    assert (course.username, course.state) == ("course", "OK")

    offering = sandbox.offering.uuid
    if sandbox.server_version == "7.7.9":
        with pytest.raises(AbsentOperationError):
            waldur.offering_service_accounts(offering)
        with pytest.raises(AbsentOperationError):
            waldur.offering_course_accounts(offering)
    else:
        assert waldur.offering_service_accounts(offering).items == (service,)
        assert waldur.offering_course_accounts(offering).items == (course,)


def test_a_token_of_the_offering_alone_is_denied_what_belongs_to_the_provider(
    sandbox: Sandbox, waldur: Waldur
) -> None:
    manager = sandbox.customer.add_user("manager")
    sandbox.customer.add_offering_role(sandbox.offering, manager)
    provider = sandbox.provider.service_provider
    with Waldur(waldur.base_url, manager.token) as limited:
        for ask in (limited.project_roles, limited.service_accounts, limited.course_accounts):
            with pytest.raises(AccessDeniedError):
                ask(provider)
        assert limited.offering_users(sandbox.offering.uuid).complete
        assert limited.user_limits(sandbox.offering.uuid).complete


def test_limits_of_single_users_lead_to_resource_and_account(
    sandbox: Sandbox, waldur: Waldur
) -> None:
    (resource, *_) = waldur.resources(sandbox.offering.uuid).items
    sandbox.customer.set_user_limit(resource.uuid.hex, "ada", "cpu", "10.5")
    (limit,) = waldur.user_limits(sandbox.offering.uuid).require_complete("user limits")
    accounts = {row.uuid: row for row in waldur.offering_users(sandbox.offering.uuid).items}
    assert limit.offering_user_uuid is not None
    assert accounts[limit.offering_user_uuid].username == "ada"
    assert limit.resource_uuid == resource.uuid
    assert (limit.component_type, limit.limit) == ("cpu", Decimal("10.5"))


def test_a_policy_is_seen_where_there_are_policies(sandbox: Sandbox, waldur: Waldur) -> None:
    offering = sandbox.offering.uuid
    if sandbox.server_version == "7.7.9":
        with pytest.raises(AbsentOperationError):
            waldur.periodic_policies(offering)
        return
    assert waldur.periodic_policies(offering).require_complete("policies") == ()
    made = sandbox.customer.add_periodic_policy()
    (policy,) = waldur.periodic_policies(offering).require_complete("policies")
    assert (policy.uuid, policy.scope_uuid) == (UUID(made.uuid), UUID(offering))


def test_a_new_person_gets_a_username_and_is_ok(sandbox: Sandbox, waldur: Waldur) -> None:
    uuid = sandbox.customer.set_account("ada", "", "Requested").uuid
    waldur.begin_creating(uuid)
    named = waldur.set_username(uuid, "ada01")
    assert named.username == "ada01"
    if named.state == "OK":
        with pytest.raises(TransitionRefusedError, match="current state: 5"):
            waldur.set_ok(uuid)
    else:
        waldur.set_ok(uuid)
    assert waldur.offering_user(uuid).state == "OK"
    assert (named.state == "OK") is (sandbox.server_version == "8.1.3")


def test_a_person_who_has_to_act_is_told_and_then_let_in(sandbox: Sandbox, waldur: Waldur) -> None:
    uuid = sandbox.customer.set_account("ada", "ada", "Requested").uuid
    with pytest.raises(TransitionRefusedError):
        waldur.set_pending_account_linking(uuid, "Link your account")
    waldur.begin_creating(uuid)
    waldur.set_pending_account_linking(uuid, "Link your account", "https://example.org/link")
    waiting = waldur.offering_user(uuid)
    assert (waiting.state, waiting.service_provider_comment) == (
        "Pending account linking",
        "Link your account",
    )
    assert waiting.service_provider_comment_url == "https://example.org/link"
    waldur.set_pending_additional_validation(uuid, "Show your passport")
    waldur.set_validation_complete(uuid)
    let_in = waldur.offering_user(uuid)
    assert (let_in.state, let_in.service_provider_comment) == ("OK", "")


def test_an_account_that_is_to_go_goes_step_by_step(sandbox: Sandbox, waldur: Waldur) -> None:
    sandbox.customer.set_account("ada", "ada")
    uuid = sandbox.customer.request_deletion("ada").uuid
    with pytest.raises(TransitionRefusedError):
        waldur.set_deleted(uuid)
    states = []
    for move in (waldur.set_deleting, waldur.set_deleted):
        move(uuid)
        states.append(waldur.offering_user(uuid).state)
    assert states == ["Deleting", "Deleted"]


def test_an_account_that_could_not_be_made_is_tried_again(sandbox: Sandbox, waldur: Waldur) -> None:
    uuid = sandbox.customer.set_account("ada", "", "Creating").uuid
    waldur.set_error_creating(uuid)
    assert waldur.offering_user(uuid).state == "Error creating"
    waldur.begin_creating(uuid)
    assert waldur.offering_user(uuid).state == "Creating"


def test_names_of_people_are_there_where_the_server_tells_them(
    sandbox: Sandbox, waldur: Waldur
) -> None:
    users = waldur.offering_users(sandbox.offering.uuid).require_complete("users")
    (ada,) = [user for user in users if user.user_username == "ada"]
    old = sandbox.server_version == "7.7.9"
    assert (ada.user_first_name, ada.user_last_name) == (("", "") if old else ("Ada", "Lovelace"))
    assert (ada.user_full_name, ada.user_email) == ("Ada Lovelace", "ada@example.org")
    assert ada.modified is not None
