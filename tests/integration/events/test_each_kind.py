"""Each kind of event, from the sandbox over a real RabbitMQ into a real Slurm."""

from __future__ import annotations

import signal

import pytest

from harness import eventually
from integration.events.conftest import Village

pytestmark = [pytest.mark.slurm, pytest.mark.rabbitmq]


def test_every_kind_of_event_takes_effect_without_any_polling(village: Village) -> None:
    side, house, town = village.side, village.house, village
    project = village.project()
    with village.agent() as service:
        resource = village.done(house.order(project, "run", cpu=10))
        village.has(resource, town.ada, town.bob)

        village.join(project, "cyd", town.cyd)
        village.has(resource, town.ada, town.bob, town.cyd)
        side.remove_member(project, "bob")
        village.has(resource, town.ada, town.cyd)

        account = side.add_service_account(project, town.svc)
        village.has(resource, town.ada, town.cyd, town.svc)
        side.set_project_account_state(account, "Closed")
        village.has(resource, town.ada, town.cyd)

        side.set_flags(resource, paused=True)
        eventually(lambda: town.account(resource).qos == ({"paused"}, "paused"), "the pause")
        side.set_flags(resource, paused=False)
        eventually(lambda: town.account(resource).qos[1] != "paused", "the end of the pause")

        late = side.add_user("late")
        side.add_member(project, late)
        village.settle()
        side.set_account(late, town.oper)
        village.has(resource, town.ada, town.cyd, town.oper)
        side.request_deletion(late)
        village.has(resource, town.ada, town.cyd)

        update = side.place_update_order(side.current(resource), {"cpu": 20})
        village.done(update)
        assert town.account(resource).limit() == "cpu=1200000"

        found = f"{town.prefix}a_found"
        parent = next(a for a in town.slurm.accounts(f"{town.prefix}p_"))
        town.by_hand("add", "account", f"name={found}", f"parent={parent}")
        request = side.request_import()
        eventually(lambda: side.current(request).state == "Done", "the answer")
        assert [each.backend_id for each in side.importable()] == [found]

        village.done(side.place_terminate_order(side.current(resource)))
        assert resource.backend_id not in town.slurm.accounts(town.prefix)
        village.settle()
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    assert "Traceback" not in service.text
    assert house.sandbox.requests.count("*_erred") == 0
    assert house.sandbox.events.failures == []
