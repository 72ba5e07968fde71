"""A service whose token has no role."""

from __future__ import annotations

import json

from harness import Installation, eventually

QUICKLY = {"WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES": "0.01"}


def test_a_service_says_so_in_its_health_and_begins_when_the_role_is_given(
    installation: Installation,
) -> None:
    testbed = installation.testbed
    user = testbed.sandbox.customer.add_user("stranger")
    health = installation.directory / "health.json"
    installation.write_offerings({"waldur_api_token": user.token}, health_file=str(health))
    order = testbed.order(testbed.project(ada="ada01"))

    def trouble() -> str:
        if not health.exists():
            return ""
        (worker,) = json.loads(health.read_text())["workers"] or [{}]
        return str(worker.get("trouble", ""))

    with installation.service(**QUICKLY):
        eventually(lambda: "has no role at all" in trouble(), "the trouble in the health file")
        testbed.sandbox.customer.add_customer_role(testbed.sandbox.offering.customer, user)
        eventually(lambda: testbed.state(order) == "done", "the order")
        eventually(lambda: not trouble(), "good health")
