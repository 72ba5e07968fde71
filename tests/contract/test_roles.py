"""Which role may do what: every operation of the gateway, against the sandbox, by each role.

A reader checks the table against what is known of real servers: the owner of the provider may do
all; the version and nothing else is for staff; managers of the organization neither approve nor
reject nor report usage; managers of the offering get what older and the newest role lists give
them; whoever has no role sees empty lists.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from contract.scene import Scene
from contract.worlds import register_agent
from harness.patience import patience
from waldur_site_agent.waldur.api import OPERATIONS
from waldur_site_agent_sandbox.generations import Generation
from waldur_site_agent_sandbox.server import OPERATIONS as OFFERED

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD, NEW = "7.7.9", "8.1.3"
COLUMNS = (
    ("CUSTOMER.OWNER", NEW),
    ("CUSTOMER.OWNER", OLD),
    ("CUSTOMER.MANAGER", NEW),
    ("CUSTOMER.MANAGER", OLD),
    ("OFFERING.MANAGER", NEW),
    ("OFFERING.MANAGER", OLD),
    ("", NEW),
)
TABLE = """
                                                                  CUSTOMER        OFFERING
                                                                  OWNER   MANAGER MANAGER no
operation                                                         8   7   8   7   8   7   role
users_me_retrieve                                                 ok  ok  ok  ok  ok  ok  ok
version_retrieve                                                  403 403 403 403 403 403 403

marketplace_provider_offerings_retrieve                           ok  ok  ok  ok  ok  ok  404
marketplace_provider_offerings_create_offering_component          ok  ok  ok  ok  403 403 404
marketplace_provider_offerings_update_offering_component          ok  ok  ok  ok  403 403 404
marketplace_provider_offerings_list_project_service_accounts_list ok  -   ok  -   ok  -   404
marketplace_provider_offerings_list_course_accounts_list          ok  -   ok  -   ok  -   404
marketplace_slurm_periodic_usage_policies_list                    ok  -   ok  -   ok  -   []
marketplace_slurm_periodic_usage_policies_report_command_result   403 -   403 -   403 -   404

marketplace_orders_list                                           ok  ok  ok  ok  ok  ok  []
marketplace_orders_retrieve                                       ok  ok  ok  ok  ok  ok  404
marketplace_orders_approve_by_provider                            ok  ok  403 403 403 403 404
marketplace_orders_reject_by_provider                             ok  ok  403 403 403 403 404
marketplace_orders_set_state_done                                 ok  ok  403 403 403 403 404
marketplace_orders_set_state_erred                                ok  ok  403 403 403 403 404
marketplace_orders_set_backend_id                                 ok  -   ok  -   ok  -   404

marketplace_provider_resources_list                               ok  ok  ok  ok  ok  ok  []
marketplace_provider_resources_retrieve                           ok  ok  ok  ok  ok  ok  404
marketplace_provider_resources_team_list                          ok  ok  ok  ok  ok  ok  404
marketplace_provider_resources_set_backend_id                     ok  ok  ok  ok  ok  ok  404
marketplace_provider_resources_set_limits                         ok  ok  ok  ok  403 403 404
marketplace_provider_resources_set_backend_metadata               ok  ok  ok  ok  403 403 404
marketplace_provider_resources_refresh_last_sync                  ok  ok  ok  ok  403 403 404
marketplace_provider_resources_set_as_ok                          ok  ok  ok  ok  403 403 404
marketplace_provider_resources_set_as_erred                       ok  ok  ok  ok  ok  403 404
component_user_usage_limits_list                                  ok  ok  ok  ok  ok  ok  []

marketplace_service_providers_list                                ok  ok  ok  ok  ok  ok  []
marketplace_service_providers_project_permissions_list            ok  ok  ok  ok  403 403 404
marketplace_service_providers_project_service_accounts_list       ok  ok  ok  ok  403 403 404
marketplace_service_providers_course_accounts_list                ok  ok  ok  ok  403 403 404
marketplace_service_providers_projects_list                       ok  ok  ok  ok  403 403 404
projects_list                                                     []  []  []  []  []  []  []

marketplace_offering_users_list                                   ok  ok  ok  ok  ok  ok  []
marketplace_offering_users_retrieve                               ok  ok  ok  ok  ok  ok  404
marketplace_offering_users_partial_update                         ok  ok  ok  ok  403 403 404
marketplace_offering_users_begin_creating                         ok  ok  ok  ok  403 403 404
marketplace_offering_users_set_ok                                 ok  ok  ok  ok  403 403 404
marketplace_offering_users_set_pending_account_linking            ok  ok  ok  ok  403 403 404
marketplace_offering_users_set_pending_additional_validation      ok  ok  ok  ok  403 403 404
marketplace_offering_users_set_validation_complete                ok  ok  ok  ok  403 403 404
marketplace_offering_users_set_error_creating                     ok  ok  ok  ok  403 403 404
marketplace_offering_users_set_deleting                           ok  ok  ok  ok  403 403 404
marketplace_offering_users_set_deleted                            ok  ok  ok  ok  403 403 404

marketplace_component_usages_list                                 ok  ok  ok  ok  ok  ok  []
marketplace_component_user_usages_list                            ok  ok  ok  ok  ok  ok  []
marketplace_component_usages_set_usage                            ok  ok  403 403 ok  ok  403
marketplace_component_usages_set_user_usage                       ok  ok  403 403 ok  ok  404
marketplace_component_usages_set_user_usages                      ok  -   403 -   ok  -   404

marketplace_site_agent_identities_list                            ok  -   ok  -   ok  -   []
marketplace_site_agent_identities_create                          ok  -   ok  -   403 -   403
marketplace_site_agent_identities_update                          ok  -   ok  -   403 -   404
marketplace_site_agent_identities_register_service                ok  -   ok  -   403 -   404
marketplace_site_agent_identities_register_queue                  ok  -   ok  -   403 -   404
marketplace_site_agent_identities_register_event_subscription     ok  -   ok  -   403 -   404
marketplace_site_agent_services_register_processor                ok  -   ok  -   403 -   404
marketplace_site_agent_logs_create                                ok  -   ok  -   ok  -   400
event_subscriptions_list                                          ok  ok  ok  ok  ok  ok  ok
event_subscriptions_create                                        ok  ok  ok  ok  ok  ok  ok
event_subscriptions_create_queue                                  ok  -   ok  -   ok  -   400
event_subscription_queues_list                                    ok  -   ok  -   ok  -   ok

backend_resource_requests_list                                    ok  ok  ok  ok  ok  ok  []
backend_resource_requests_retrieve                                ok  ok  ok  ok  ok  ok  404
backend_resource_requests_start_processing                        ok  ok  ok  ok  ok  403 404
backend_resource_requests_set_done                                ok  ok  ok  ok  ok  403 404
backend_resource_requests_set_erred                               ok  ok  ok  ok  ok  403 404
backend_resources_list                                            ok  ok  ok  ok  ok  ok  []
backend_resources_create                                          ok  ok  ok  ok  ok  403 403
"""
EXPECTED = {
    words[0]: dict(zip(COLUMNS, words[1:], strict=True))
    for line in TABLE.strip().splitlines()[3:]
    if (words := line.split())
}


SERVED = {each.name: each for each in OFFERED}


def result(scene: Scene, api: httpx.Client, name: str) -> str:
    """What becomes of an operation, in the words of the table."""
    operation = SERVED[name]
    if not Generation(scene.sandbox.server_version).reached(*operation.since):
        return "-"
    action = operation.path.rstrip("/").rpartition("/")[2]
    answer = scene.call(api, operation, "partial_update" if operation.method == "PATCH" else action)
    if not answer.is_success:
        return str(answer.status_code)
    return "[]" if name.endswith("_list") and answer.json() == [] else "ok"


@contextmanager
def agent_as(role: str, version: str) -> Iterator[tuple[Scene, httpx.Client]]:
    """Give the agent, which has set everything up as the owner, one role instead, or none."""
    scene = Scene(version)
    sandbox, side = scene.sandbox, scene.sandbox.customer
    headers = {"Authorization": f"Token {sandbox.token}"}
    with (
        sandbox.serve() as url,
        httpx.Client(base_url=url, headers=headers, timeout=patience()) as api,
    ):
        register_agent(sandbox, api)
        for held in list(side.world.roles.values()):
            if held.user == sandbox.agent.uuid:
                side.end_role(held)
        for account in list(side.world.offering_users.values()):
            if account.user == sandbox.agent.uuid:  # one's own is for everybody to see
                side.world.remove(account)
        if role == "OFFERING.MANAGER":
            side.add_offering_role(sandbox.offering, sandbox.agent, role)
        elif role:
            side.add_customer_role(sandbox.provider, sandbox.agent, role)
        yield scene, api


@pytest.mark.parametrize(("role", "version"), COLUMNS)
def test_the_server_refuses_what_a_role_may_not_do(role: str, version: str) -> None:
    with agent_as(role, version) as (scene, api):
        found = {name: result(scene, api, name) for name in EXPECTED}
    assert found == {name: row[role, version] for name, row in EXPECTED.items()}


def test_every_operation_of_the_gateway_is_in_the_table() -> None:
    assert {operation.id for operation in OPERATIONS} == set(EXPECTED)
