"""order_process as a process of its own, on a real Slurm."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from harness import House, Installation, eventually
from waldur_site_agent_sandbox import Order, Project, Resource

pytestmark = pytest.mark.slurm

OFTEN = {"WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES": "0.02"}


class Town:
    """A sandbox, a real cluster, and the agent between them."""

    def __init__(self, site: Installation, slurm: Any, prefix: str) -> None:
        self.site, self.slurm, self.prefix = site, slurm, prefix
        self.house: House = site.house
        self.project: Project = self.house.project(
            "climate", ada=slurm.users[0], bob=slurm.users[1]
        )

    def order(self, name: str = "run", **limits: float) -> Order:
        return self.house.order(self.project, name, **limits)

    def created(self, **limits: float) -> Resource:
        order = self.order("run", **limits)
        done = self.site.run("--once")
        assert done.code == 0, done.err
        return self.house.resource(order)

    def users_of(self, account: str) -> set[str]:
        rows = self.slurm.associations(f"{account}|")
        return {row.split("|")[1] for row in rows} - {""}

    def limits_of(self, account: str) -> str:
        (row,) = (r for r in self.slurm.associations(f"{account}|") if r.split("|")[1] == "")
        return str(row.split("|")[5])

    def name(self, order: Order) -> str:
        return f"{self.prefix}a_{self.house.resource(order).slug}"

    def is_done(self, order: Order) -> bool:
        return self.house.state(order) == "done"


@pytest.fixture
def town(real_site: Installation, real_slurm: Any, prefix: str) -> Town:
    return Town(real_site, real_slurm, prefix)


def test_the_whole_life_of_a_resource(town: Town) -> None:
    resource = town.created(cpu=10, mem=2)
    account, users = resource.backend_id, set(town.slurm.users[:2])
    assert town.users_of(account) == users
    assert town.limits_of(account) == "cpu=600000,mem=120G"
    job = town.slurm.submit_job(town.slurm.users[0], account)
    side = town.house.sandbox.customer
    update = side.place_update_order(resource, {"cpu": 20, "mem": 2})
    assert town.site.run("--once").code == 0
    assert town.is_done(update)
    assert town.limits_of(account) == "cpu=1200000,mem=120G"
    assert job in town.slurm.jobs(account)
    end = side.place_terminate_order(side.current(resource))
    done = town.site.run("--once")
    assert done.code == 0, done.err
    assert town.is_done(end)
    assert town.slurm.jobs(account) == []
    assert town.slurm.accounts(town.prefix) == [f"{town.prefix}c_uni"]


def test_five_and_twenty_orders_at_once(town: Town) -> None:
    orders = [town.order(f"run {n}") for n in range(25)]
    town.house.sandbox.requests.clear()
    done = town.site.run("--once")
    assert done.code == 0, done.err
    assert all(town.is_done(order) for order in orders)
    assert len({town.house.resource(order).backend_id for order in orders}) == 25
    for order in orders:
        assert town.users_of(town.name(order)) == set(town.slurm.users[:2])
    assert town.house.sandbox.requests.count() <= 10 + 6 * 25 + 3


def test_a_dry_run_leaves_the_cluster_as_it_is(town: Town) -> None:
    town.order()
    before = town.slurm.associations()
    done = town.site.run("--dry-run")
    assert done.code == 0, done.err
    assert "+ account" in done.out
    assert town.slurm.associations() == before


def test_a_database_that_is_stopped_and_started_again_costs_nothing_but_time(town: Town) -> None:
    order = town.order()
    with town.site.service(**OFTEN) as service:
        with town.slurm.slurmdbd_stopped():
            eventually(lambda: "cut short" in service.text, "a cycle without the database")
            assert town.house.state(order) == "pending-provider"
        eventually(lambda: town.is_done(order), "the order after the outage")
    assert town.users_of(town.name(order)) == set(town.slurm.users[:2])
    assert town.house.sandbox.requests.count("*_set_state_erred") == 0


def test_a_database_that_goes_away_in_the_middle_of_a_cycle(town: Town) -> None:
    order = town.order()
    town.house.sandbox.faults.add(
        "marketplace_provider_resources_set_backend_id", "latency", seconds=2
    )
    with town.site.service(**OFTEN) as service:
        eventually(lambda: town.slurm.accounts(town.name(order)), "the account")
        with town.slurm.slurmdbd_stopped():
            eventually(lambda: "action failed" in service.text, "a failed addition")
            assert town.house.state(order) == "executing"
        eventually(lambda: town.is_done(order), "the order after the outage")
    assert town.users_of(town.name(order)) == set(town.slurm.users[:2])
    assert town.house.resource(order).state == "OK"


def test_a_database_that_hangs_is_given_up_on_and_tried_again(town: Town) -> None:
    order = town.order()
    town.site.write(backend_settings=town.site.backend_settings | {"command_timeout_seconds": 2})
    with town.slurm.slurmdbd_frozen():
        done = town.site.run("--once")
        assert done.code == 1
        assert "gave no answer within 2 seconds" in done.err
        assert town.house.state(order) == "pending-provider"
    assert town.site.run("--once").code == 0
    assert town.is_done(order)


KillAt = Callable[[Town, Order], bool]


def the_account_exists(town: Town, order: Order) -> bool:
    return town.name(order) in town.slurm.accounts(town.prefix)


def waldur_knows_the_name(town: Town, order: Order) -> bool:
    return bool(town.house.resource(order).backend_id)


def the_members_are_there(town: Town, order: Order) -> bool:
    return town.users_of(town.name(order)) == set(town.slurm.users[:2])


@pytest.mark.parametrize(
    ("moment", "slow"),
    [
        (the_account_exists, "marketplace_provider_resources_set_backend_id"),
        (waldur_knows_the_name, "nothing"),
        (the_members_are_there, "marketplace_orders_set_state_done"),
    ],
)
def test_a_killed_creation_is_finished_by_the_next_start(
    town: Town, moment: KillAt, slow: str
) -> None:
    order = town.order(cpu=10)
    town.house.sandbox.faults.add(slow, "latency", seconds=5)
    with town.site.service() as service:
        eventually(lambda: moment(town, order), moment.__name__)
        service.send(signal.SIGKILL)
        service.wait()
    town.house.sandbox.faults.clear()
    assert town.site.run("--once").code == 0
    assert town.is_done(order)
    assert the_members_are_there(town, order)
    assert town.limits_of(town.name(order)) == "cpu=600000"
    parents = [f"{town.prefix}c_uni", f"{town.prefix}p_climate"]
    assert sorted(town.slurm.accounts(town.prefix)) == sorted([*parents, town.name(order)])
    assert town.house.sandbox.requests.count("*_set_state_erred") == 0


def test_a_killed_update_and_a_killed_termination_are_finished_by_the_next_start(
    town: Town,
) -> None:
    resource = town.created(cpu=10)
    side = town.house.sandbox.customer
    update = side.place_update_order(resource, {"cpu": 20})
    kill_when(town, lambda: "cpu=1200000" in town.limits_of(resource.backend_id))
    assert town.site.run("--once").code == 0
    assert town.is_done(update)
    end = side.place_terminate_order(side.current(resource))
    kill_when(town, lambda: resource.backend_id not in town.slurm.accounts(town.prefix))
    assert town.site.run("--once").code == 0
    assert town.is_done(end)
    assert town.slurm.accounts(town.prefix) == [f"{town.prefix}c_uni"]


def kill_when(town: Town, condition: Callable[[], bool]) -> None:
    """Kill an agent that would otherwise finish, as soon as the cluster shows its work."""
    town.house.sandbox.faults.add("marketplace_orders_set_state_done", "latency", seconds=5)
    with town.site.service() as service:
        eventually(condition, "the change in the cluster")
        service.send(signal.SIGKILL)
        service.wait()
    town.house.sandbox.faults.clear()


def test_a_foreign_account_of_the_same_name_stays_byte_for_byte(town: Town) -> None:
    order = town.order()
    name = town.name(order)
    town.slurm.sacctmgr("add", "account", f"name={name}", "organization=physics", "Fairshare=7")
    before = town.slurm.associations(name)
    done = town.site.run("--once")
    assert done.code == 1
    assert town.house.state(order) == "erred"
    assert f'account "{name}" exists under "root"' in done.err
    assert town.slurm.associations(name) == before


def test_two_agents_started_at_once_do_the_work_once(town: Town) -> None:
    orders = [town.order(f"run {n}") for n in range(3)]
    with town.site.service(**OFTEN) as first, town.site.service(**OFTEN) as second:
        eventually(lambda: all(town.is_done(order) for order in orders), "all orders")
        first.send(signal.SIGTERM)
        second.send(signal.SIGTERM)
        first.wait()
        second.wait()
    for order in orders:
        assert the_members_are_there(town, order)
    done = town.house.sandbox.requests.of("marketplace_orders_set_state_done")
    assert sum(request.status == 200 for request in done) == 3
