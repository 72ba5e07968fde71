"""Each kind of event, from the sandbox over a real RabbitMQ into a real Slurm.

Three projects, so that three kinds of events can be on their way at once and none of them does the
work of another: a pass looks at the projects alone that it was woken for.
"""

from __future__ import annotations

import signal

import pytest

from harness import eventually
from integration.events.conftest import EventSite
from waldur_site_agent_sandbox import Resource

pytestmark = [pytest.mark.slurm, pytest.mark.rabbitmq]


def test_every_kind_of_event_takes_effect_without_any_polling(event_site: EventSite) -> None:
    side, testbed, slurm_site = event_site.side, event_site.testbed, event_site
    projects = [event_site.project(slug) for slug in ("roles", "accounts", "flags")]
    with event_site.agent() as service:
        orders = [testbed.order(project, project.slug, cpu=10) for project in projects]
        roles, accounts, flags = map(event_site.done, orders)
        for resource in (roles, accounts, flags):
            event_site.has(resource, slurm_site.ada, slurm_site.bob)

        event_site.join(projects[0], "cyd", slurm_site.cyd)
        account = side.add_service_account(projects[1], slurm_site.svc)
        side.set_flags(flags, paused=True)
        event_site.has(roles, slurm_site.ada, slurm_site.bob, slurm_site.cyd)
        event_site.has(accounts, slurm_site.ada, slurm_site.bob, slurm_site.svc)
        eventually(lambda: slurm_site.account(flags).qos == ({"paused"}, "paused"), "the pause")

        side.remove_member(projects[0], "bob")
        side.set_project_account_state(account, "Closed")
        side.set_flags(flags, paused=False)
        event_site.has(roles, slurm_site.ada, slurm_site.cyd)
        event_site.has(accounts, slurm_site.ada, slurm_site.bob)
        eventually(lambda: slurm_site.account(flags).qos[1] != "paused", "the end of the pause")

        late = side.add_user("late")
        side.add_member(projects[0], late)
        event_site.settle()
        side.set_account(late, slurm_site.oper)
        event_site.has(roles, slurm_site.ada, slurm_site.cyd, slurm_site.oper)

        update = side.place_update_order(side.current(flags), {"cpu": 20})
        side.request_deletion(late)
        found = unknown_account_beside(event_site, roles)
        request = side.request_import()
        event_site.done(update)
        assert slurm_site.account(flags).limit() == "cpu=1200000"
        event_site.has(roles, slurm_site.ada, slurm_site.cyd)
        eventually(lambda: side.current(request).state == "Done", "the answer")
        assert [each.backend_id for each in side.importable()] == [found]

        event_site.done(side.place_terminate_order(side.current(flags)))
        assert flags.backend_id not in slurm_site.slurm.accounts(slurm_site.prefix)
        event_site.settle()
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    assert "Traceback" not in service.text
    assert testbed.sandbox.requests.count("*_erred") == 0
    assert testbed.sandbox.events.failures == []


def unknown_account_beside(event_site: EventSite, resource: Resource) -> str:
    """An account that somebody made by hand in a project's account."""
    beside = event_site.account(resource).rows[""]
    name = f"{event_site.prefix}a_found"
    event_site.by_hand("add", "account", f"name={name}", f"parent={beside[2]}")
    return name
