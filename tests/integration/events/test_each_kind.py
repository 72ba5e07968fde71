"""Each kind of event, from the sandbox over a real RabbitMQ into a real Slurm.

Three projects, so that three kinds of events can be on their way at once and none of them does the
work of another: a pass looks at the projects alone that it was woken for.
"""

from __future__ import annotations

import signal

import pytest

from harness import eventually
from integration.events.conftest import Village
from waldur_site_agent_sandbox import Resource

pytestmark = [pytest.mark.slurm, pytest.mark.rabbitmq]


def test_every_kind_of_event_takes_effect_without_any_polling(village: Village) -> None:
    side, house, town = village.side, village.house, village
    projects = [village.project(slug) for slug in ("roles", "accounts", "flags")]
    with village.agent() as service:
        orders = [house.order(project, project.slug, cpu=10) for project in projects]
        roles, accounts, flags = map(village.done, orders)
        for resource in (roles, accounts, flags):
            village.has(resource, town.ada, town.bob)

        village.join(projects[0], "cyd", town.cyd)
        account = side.add_service_account(projects[1], town.svc)
        side.set_flags(flags, paused=True)
        village.has(roles, town.ada, town.bob, town.cyd)
        village.has(accounts, town.ada, town.bob, town.svc)
        eventually(lambda: town.account(flags).qos == ({"paused"}, "paused"), "the pause")

        side.remove_member(projects[0], "bob")
        side.set_project_account_state(account, "Closed")
        side.set_flags(flags, paused=False)
        village.has(roles, town.ada, town.cyd)
        village.has(accounts, town.ada, town.bob)
        eventually(lambda: town.account(flags).qos[1] != "paused", "the end of the pause")

        late = side.add_user("late")
        side.add_member(projects[0], late)
        village.settle()
        side.set_account(late, town.oper)
        village.has(roles, town.ada, town.cyd, town.oper)

        update = side.place_update_order(side.current(flags), {"cpu": 20})
        side.request_deletion(late)
        found = unknown_account_beside(village, roles)
        request = side.request_import()
        village.done(update)
        assert town.account(flags).limit() == "cpu=1200000"
        village.has(roles, town.ada, town.cyd)
        eventually(lambda: side.current(request).state == "Done", "the answer")
        assert [each.backend_id for each in side.importable()] == [found]

        village.done(side.place_terminate_order(side.current(flags)))
        assert flags.backend_id not in town.slurm.accounts(town.prefix)
        village.settle()
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    assert "Traceback" not in service.text
    assert house.sandbox.requests.count("*_erred") == 0
    assert house.sandbox.events.failures == []


def unknown_account_beside(village: Village, resource: Resource) -> str:
    """An account that somebody made by hand in a project's account."""
    beside = village.account(resource).rows[""]
    name = f"{village.prefix}a_found"
    village.by_hand("add", "account", f"name={name}", f"parent={beside[2]}")
    return name
