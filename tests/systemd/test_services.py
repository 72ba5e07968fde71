"""Every service that can be installed: it starts, works, and stops."""

from __future__ import annotations

from typing import Any

import pytest

from harness import eventually
from systemd.conftest import RUN, USER, Services
from waldur_site_agent.service.session import MODE_NAMES

VARIANTS = {
    "root": (),
    "ordinary user": ("--user", USER),
    "ordinary user with sudo": ("--user", USER, "--sudo-homes"),
    "legacy": ("--legacy",),
    "legacy ordinary user": ("--legacy", "--user", USER),
}
NO_BROKER: dict[str, Any] = {
    "stomp_enabled": True,
    "websocket_use_tls": False,
    "stomp_ws_host": "127.0.0.1",
    "stomp_ws_port": 1,
}


@pytest.mark.guarantee("security: The services")
@pytest.mark.usefixtures("ordinary_user")
@pytest.mark.parametrize("mode", MODE_NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_service_starts_works_and_stops(services: Services, variant: str, mode: str) -> None:
    unit = services.install(*VARIANTS[variant], mode=mode)
    services.write(None, **NO_BROKER if mode == "event_process" else {})
    project = services.testbed.project(ada="ada01")
    if mode in ("membership_sync", "report"):
        services.testbed.created(project)
    else:
        order = services.testbed.order(project)
    if mode == "membership_sync":
        side = services.testbed.sandbox.customer
        side.add_member(project, services.testbed.person("bob", "bob01"))
    unit.systemctl("enable", "--now")
    assert unit.is_("active")
    if mode == "membership_sync":
        eventually(lambda: "bob01" in services.testbed.slurm.state.users, "a member")
    elif mode == "report":
        usages = "marketplace_component_usages_set_usage"
        eventually(lambda: services.testbed.sandbox.requests.count(usages), "a report")
    else:
        services.wait_for(order)
    if "legacy" not in variant:
        eventually(lambda: "served" in unit["StatusText"], "a status")
    assert {path.owner() for path in (RUN, *RUN.iterdir())} == {services.user}
    assert unit.status_of_process("Uid").split()[0] == str(RUN.stat().st_uid)
    unit.systemctl("stop")
    assert (unit["ActiveState"], unit["Result"], unit["NRestarts"]) == ("inactive", "success", "0")
    log = services.log_of(unit)
    assert "Traceback" not in log
    assert "stopping" in log
    assert services.testbed.sandbox.token not in log
