"""order_process as a process of its own, on a real Slurm."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from harness import Installation, SimulatedSite, eventually
from waldur_site_agent_sandbox import Order, Project, Resource

pytestmark = pytest.mark.slurm

OFTEN = {"WALDUR_SITE_AGENT_ORDER_PROCESS_PERIOD_MINUTES": "0.02"}


class SlurmSite:
    """A sandbox, a real cluster, and the agent between them."""

    def __init__(self, site: Installation, slurm: Any, prefix: str) -> None:
        self.site, self.slurm, self.prefix = site, slurm, prefix
        self.testbed: SimulatedSite = site.testbed
        self.project: Project = self.testbed.project(
            "climate", ada=slurm.users[0], bob=slurm.users[1]
        )

    def order(self, name: str = "run", **limits: float) -> Order:
        return self.testbed.order(self.project, name, **limits)

    def created(self, **limits: float) -> Resource:
        order = self.order("run", **limits)
        done = self.site.run("--once")
        assert done.code == 0, done.err
        return self.testbed.resource(order)

    def users_of(self, account: str) -> set[str]:
        rows = self.slurm.associations(f"{account}|")
        return {row.split("|")[1] for row in rows} - {""}

    def limits_of(self, account: str) -> str:
        (row,) = (r for r in self.slurm.associations(f"{account}|") if r.split("|")[1] == "")
        return str(row.split("|")[5])

    def name(self, order: Order) -> str:
        return f"{self.prefix}a_{self.testbed.resource(order).slug}"

    def is_done(self, order: Order) -> bool:
        return self.testbed.state(order) == "done"


@pytest.fixture
def slurm_site(real_site: Installation, real_slurm: Any, prefix: str) -> SlurmSite:
    return SlurmSite(real_site, real_slurm, prefix)


@pytest.mark.guarantee("orders: The normal case")
def test_the_whole_life_of_a_resource(slurm_site: SlurmSite) -> None:
    resource = slurm_site.created(cpu=10, mem=2)
    account, users = resource.backend_id, set(slurm_site.slurm.users[:2])
    assert slurm_site.users_of(account) == users
    assert slurm_site.limits_of(account) == "cpu=600000,mem=120G"
    job = slurm_site.slurm.submit_job(slurm_site.slurm.users[0], account)
    side = slurm_site.testbed.sandbox.customer
    update = side.place_update_order(resource, {"cpu": 20, "mem": 2})
    assert slurm_site.site.run("--once").code == 0
    assert slurm_site.is_done(update)
    assert slurm_site.limits_of(account) == "cpu=1200000,mem=120G"
    assert job in slurm_site.slurm.jobs(account)
    end = side.place_terminate_order(side.current(resource))
    done = slurm_site.site.run("--once")
    assert done.code == 0, done.err
    assert slurm_site.is_done(end)
    assert slurm_site.slurm.jobs(account) == []
    assert slurm_site.slurm.accounts(slurm_site.prefix) == [f"{slurm_site.prefix}c_uni"]


@pytest.mark.guarantee("orders: The normal case")
def test_a_closed_account_keeps_its_usage_and_is_opened_again(slurm_site: SlurmSite) -> None:
    slurm_site.site.backend_settings["soft_delete"] = True
    slurm_site.site.write()
    resource = slurm_site.created(cpu=10, mem=2)
    account, users = resource.backend_id, set(slurm_site.slurm.users[:2])
    slurm_site.slurm.submit_job(slurm_site.slurm.users[0], account)
    side = slurm_site.testbed.sandbox.customer
    end = side.place_terminate_order(side.current(resource))
    done = slurm_site.site.run("--once")
    assert done.code == 0, done.err
    assert slurm_site.is_done(end)
    assert slurm_site.slurm.jobs(account) == []
    assert slurm_site.users_of(account) == set()
    assert slurm_site.limits_of(account) == "cpu=0,mem=0"
    back = side.place_restore_order(side.current(resource))
    done = slurm_site.site.run("--once")
    assert done.code == 0, done.err
    assert slurm_site.is_done(back)
    assert side.current(resource).state == "OK"
    assert slurm_site.users_of(account) == users
    assert slurm_site.limits_of(account) == "cpu=600000,mem=120G"
    job = slurm_site.slurm.submit_job(slurm_site.slurm.users[0], account)
    assert job in slurm_site.slurm.jobs(account)


@pytest.mark.guarantee("prepaid: Renewals and end dates")
def test_a_prepaid_resource_is_renewed_twice(slurm_site: SlurmSite) -> None:
    side, site = slurm_site.testbed.sandbox.customer, slurm_site.site
    side.add_component("node", "one", "node-hours", is_prepaid=True)
    kinds = {"cpu": ("limit", 60000), "node": ("one", 60)}
    components = {
        name: {"label": name, "measured_unit": "hours", "accounting_type": kind, "unit_factor": n}
        for name, (kind, n) in kinds.items()
    }
    site.write(backend_components=components, membership_sync_backend="slurm")
    today = slurm_site.testbed.sandbox.clock.now().date()
    in_a_year = today.replace(year=today.year + 1, day=min(today.day, 28))
    order = side.place_create_order(
        slurm_site.project, "run", {"cpu": 1, "node": 10}, end_date=in_a_year
    )

    def works(node_minutes: int) -> str:
        for mode in ("order_process", "membership_sync"):
            done = site.run("-m", mode, "--once")
            assert done.code == 0, done.err
            account = slurm_site.testbed.resource(order).backend_id
            assert slurm_site.limits_of(account) == f"cpu=60000,node={node_minutes}", mode
        return account

    works(10 * 12 * 60)
    first = side.place_renewal_order(slurm_site.testbed.resource(order), 12)
    works(10 * 24 * 60)
    second = side.place_renewal_order(slurm_site.testbed.resource(order), 12, None, "never")
    account = works(10 * 36 * 60)
    assert slurm_site.is_done(first)
    assert slurm_site.is_done(second)
    job = slurm_site.slurm.submit_job(slurm_site.slurm.users[0], account)
    assert job in slurm_site.slurm.jobs(account)


def test_five_and_twenty_orders_at_once(slurm_site: SlurmSite) -> None:
    orders = [slurm_site.order(f"run {n}") for n in range(25)]
    slurm_site.testbed.sandbox.requests.clear()
    done = slurm_site.site.run("--once")
    assert done.code == 0, done.err
    assert all(slurm_site.is_done(order) for order in orders)
    assert len({slurm_site.testbed.resource(order).backend_id for order in orders}) == 25
    for order in orders:
        assert slurm_site.users_of(slurm_site.name(order)) == set(slurm_site.slurm.users[:2])
    assert slurm_site.testbed.sandbox.requests.count() <= 10 + 6 * 25 + 3


def test_a_dry_run_leaves_the_cluster_as_it_is(slurm_site: SlurmSite) -> None:
    slurm_site.order()
    before = slurm_site.slurm.associations()
    done = slurm_site.site.run("--dry-run")
    assert done.code == 0, done.err
    assert "+ account" in done.out
    assert slurm_site.slurm.associations() == before


@pytest.mark.guarantee("orders: Slurm misbehaves")
def test_a_database_that_is_stopped_and_started_again_costs_nothing_but_time(
    slurm_site: SlurmSite,
) -> None:
    order = slurm_site.order()
    with slurm_site.site.service(**OFTEN) as service:
        with slurm_site.slurm.slurmdbd_stopped():
            eventually(lambda: "cut short" in service.text, "a cycle without the database")
            assert slurm_site.testbed.state(order) == "pending-provider"
        eventually(lambda: slurm_site.is_done(order), "the order after the outage")
    assert slurm_site.users_of(slurm_site.name(order)) == set(slurm_site.slurm.users[:2])
    assert slurm_site.testbed.sandbox.requests.count("*_set_state_erred") == 0


@pytest.mark.guarantee("orders: Slurm misbehaves")
def test_a_database_that_goes_away_in_the_middle_of_a_cycle(slurm_site: SlurmSite) -> None:
    order = slurm_site.order()
    slurm_site.testbed.sandbox.faults.add(
        "marketplace_provider_resources_set_backend_id", "latency", seconds=2
    )
    with slurm_site.site.service(**OFTEN) as service:
        eventually(lambda: slurm_site.slurm.accounts(slurm_site.name(order)), "the account")
        with slurm_site.slurm.slurmdbd_stopped():
            eventually(
                lambda: "order deferred to the next pass" in service.text, "a failed addition"
            )
            assert slurm_site.testbed.state(order) == "executing"
        eventually(lambda: slurm_site.is_done(order), "the order after the outage")
    assert slurm_site.users_of(slurm_site.name(order)) == set(slurm_site.slurm.users[:2])
    assert slurm_site.testbed.resource(order).state == "OK"


@pytest.mark.guarantee("orders: Slurm misbehaves")
def test_a_database_that_hangs_is_given_up_on_and_tried_again(slurm_site: SlurmSite) -> None:
    order = slurm_site.order()
    slurm_site.site.write(
        backend_settings=slurm_site.site.backend_settings | {"command_timeout_seconds": 2}
    )
    with slurm_site.slurm.slurmdbd_frozen():
        done = slurm_site.site.run("--once")
        assert done.code == 1
        assert "gave no answer within 2 seconds" in done.err
        assert slurm_site.testbed.state(order) == "pending-provider"
    assert slurm_site.site.run("--once").code == 0
    assert slurm_site.is_done(order)


KillAt = Callable[[SlurmSite, Order], bool]


def the_account_exists(slurm_site: SlurmSite, order: Order) -> bool:
    return slurm_site.name(order) in slurm_site.slurm.accounts(slurm_site.prefix)


def waldur_knows_the_name(slurm_site: SlurmSite, order: Order) -> bool:
    return bool(slurm_site.testbed.resource(order).backend_id)


def the_members_are_there(slurm_site: SlurmSite, order: Order) -> bool:
    return slurm_site.users_of(slurm_site.name(order)) == set(slurm_site.slurm.users[:2])


@pytest.mark.guarantee("orders: The agent dies")
@pytest.mark.parametrize(
    ("moment", "slow"),
    [
        (the_account_exists, "marketplace_provider_resources_set_backend_id"),
        (waldur_knows_the_name, "nothing"),
        (the_members_are_there, "marketplace_orders_set_state_done"),
    ],
)
def test_a_killed_creation_is_finished_by_the_next_start(
    slurm_site: SlurmSite, moment: KillAt, slow: str
) -> None:
    order = slurm_site.order(cpu=10)
    slurm_site.testbed.sandbox.faults.add(slow, "latency", seconds=5)
    with slurm_site.site.service() as service:
        eventually(lambda: moment(slurm_site, order), moment.__name__)
        service.send(signal.SIGKILL)
        service.wait()
    slurm_site.testbed.sandbox.faults.clear()
    assert slurm_site.site.run("--once").code == 0
    assert slurm_site.is_done(order)
    assert the_members_are_there(slurm_site, order)
    assert slurm_site.limits_of(slurm_site.name(order)) == "cpu=600000"
    parents = [f"{slurm_site.prefix}c_uni", f"{slurm_site.prefix}p_climate"]
    assert sorted(slurm_site.slurm.accounts(slurm_site.prefix)) == sorted(
        [*parents, slurm_site.name(order)]
    )
    assert slurm_site.testbed.sandbox.requests.count("*_set_state_erred") == 0


@pytest.mark.guarantee("orders: The agent dies")
def test_a_killed_update_and_a_killed_termination_are_finished_by_the_next_start(
    slurm_site: SlurmSite,
) -> None:
    resource = slurm_site.created(cpu=10)
    side = slurm_site.testbed.sandbox.customer
    update = side.place_update_order(resource, {"cpu": 20})
    kill_when(slurm_site, lambda: "cpu=1200000" in slurm_site.limits_of(resource.backend_id))
    assert slurm_site.site.run("--once").code == 0
    assert slurm_site.is_done(update)
    end = side.place_terminate_order(side.current(resource))
    kill_when(
        slurm_site, lambda: resource.backend_id not in slurm_site.slurm.accounts(slurm_site.prefix)
    )
    assert slurm_site.site.run("--once").code == 0
    assert slurm_site.is_done(end)
    assert slurm_site.slurm.accounts(slurm_site.prefix) == [f"{slurm_site.prefix}c_uni"]


def kill_when(slurm_site: SlurmSite, condition: Callable[[], bool]) -> None:
    """Kill an agent that would otherwise finish, as soon as the cluster shows its work."""
    slurm_site.testbed.sandbox.faults.add("marketplace_orders_set_state_done", "latency", seconds=5)
    with slurm_site.site.service() as service:
        eventually(condition, "the change in the cluster")
        service.send(signal.SIGKILL)
        service.wait()
    slurm_site.testbed.sandbox.faults.clear()


@pytest.mark.guarantee("orders: Names")
@pytest.mark.guarantee("What the agent did not make, and Waldur does not name, stays")
def test_a_foreign_account_of_the_same_name_stays_byte_for_byte(slurm_site: SlurmSite) -> None:
    order = slurm_site.order()
    name = slurm_site.name(order)
    slurm_site.slurm.sacctmgr(
        "add", "account", f"name={name}", "organization=physics", "Fairshare=7"
    )
    before = slurm_site.slurm.associations(name)
    done = slurm_site.site.run("--once")
    assert done.code == 1
    assert slurm_site.testbed.state(order) == "erred"
    assert f'account "{name}" exists under "root"' in done.err
    assert slurm_site.slurm.associations(name) == before


@pytest.mark.guarantee("orders: Several at once")
def test_two_agents_started_at_once_do_the_work_once(slurm_site: SlurmSite) -> None:
    orders = [slurm_site.order(f"run {n}") for n in range(3)]
    with slurm_site.site.service(**OFTEN) as first, slurm_site.site.service(**OFTEN) as second:
        eventually(lambda: all(slurm_site.is_done(order) for order in orders), "all orders")
        first.send(signal.SIGTERM)
        second.send(signal.SIGTERM)
        first.wait()
        second.wait()
    for order in orders:
        assert the_members_are_there(slurm_site, order)
    done = slurm_site.testbed.sandbox.requests.of("marketplace_orders_set_state_done")
    assert sum(request.status == 200 for request in done) == 3
