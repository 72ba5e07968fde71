"""How often a cycle reads the whole cluster, and when it does not build on an earlier reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import pytest

from harness import SimulatedSite
from waldur_site_agent.backends import AddMembers, DeleteResource, Result, SetLimits
from waldur_site_agent.backends.locking import LockHeldError, exclusive_lock
from waldur_site_agent.backends.processes import CommandResult, Runner
from waldur_site_agent_slurm.simulator.state import SimAccount


def accounts_read(testbed: SimulatedSite) -> list[str]:
    """The accounts of each reading, as they were asked for; empty for the whole cluster."""
    return [
        next((word for word in command if word.startswith("name=")), "")
        for command in testbed.slurm.history
        if {"account", "withassoc"} <= {*command}
    ]


def readings(testbed: SimulatedSite) -> int:
    """How often accounts of the cluster were read."""
    return len(accounts_read(testbed))


def whole_readings(testbed: SimulatedSite) -> int:
    """How often every account of the cluster was read."""
    return accounts_read(testbed).count("")


@dataclass
class Meanwhile:
    """A runner that lets something happen right after the first reading of the cluster."""

    happens: Callable[[], object]
    inner: Runner
    is_over: bool = False

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        result = self.inner.run(argv, timeout)
        if "withassoc" in argv and not self.is_over:
            self.is_over = True
            self.happens()
        return result


@pytest.mark.guarantee("slurm: Writing")
def test_a_create_order_reads_its_accounts_alone_and_asks_twice_for_those_that_are_missing(
    testbed: SimulatedSite,
) -> None:
    order = testbed.order(testbed.project(ada="ada01", bob="bob01"), cpu=10)
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert testbed.members(order) == {"ada01", "bob01"}
    own = f"name={testbed.resource(order).backend_id},c_uni,p_climate,root"
    assert accounts_read(testbed) == [own] * 4


def test_an_update_order_reads_its_account_twice(testbed: SimulatedSite) -> None:
    resource = testbed.created(testbed.project(ada="ada01"), cpu=10, mem=2)
    order = testbed.sandbox.customer.place_update_order(resource, {"cpu": 20, "mem": 2})
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert (readings(testbed), whole_readings(testbed)) == (2, 0)


def test_somebody_who_joins_costs_one_reading_of_the_cluster_and_one_of_the_account(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada01", bob="bob01")
    resource = testbed.settled(project)
    testbed.sandbox.customer.add_member(project, testbed.person("cyd", "cyd01"))
    testbed.sync()
    assert testbed.members_of(resource) == {"ada01", "bob01", "cyd01"}
    assert (readings(testbed), whole_readings(testbed)) == (2, 1)


def test_somebody_who_leaves_costs_one_reading_of_the_cluster_and_one_of_the_account(
    testbed: SimulatedSite,
) -> None:
    project = testbed.project(ada="ada01", bob="bob01")
    resource = testbed.settled(project)
    testbed.sandbox.customer.remove_member(project, testbed.person("bob", "bob01"))
    testbed.sync()
    assert testbed.members_of(resource) == {"ada01"}
    assert (readings(testbed), whole_readings(testbed)) == (2, 1)


def test_a_termination_reads_the_cluster_anew_before_it_deletes(testbed: SimulatedSite) -> None:
    order = testbed.sandbox.customer.place_terminate_order(
        testbed.created(testbed.project(ada="ada01"))
    )
    testbed.cycle()
    assert testbed.state(order) == "done"
    assert readings(testbed) == 3


def test_the_cluster_is_read_anew_when_another_writer_had_the_lock_meanwhile(
    testbed: SimulatedSite,
) -> None:
    def write() -> None:
        with exclusive_lock(testbed.lock_file, 0, "for the test"):
            pass

    order = testbed.order(testbed.project(ada="ada01"), cpu=10)
    testbed.with_(runner=lambda inner: Meanwhile(write, inner)).cycle()
    assert testbed.state(order) == "done"
    assert readings(testbed) == 6  # a new account is missing at first, and asked for twice


def test_the_cluster_is_read_anew_when_a_writer_had_the_lock_during_the_reading(
    testbed: SimulatedSite,
) -> None:
    with testbed.agent() as site, site.backend.session():
        with exclusive_lock(testbed.lock_file, 0, "for the test"):
            site.backend.observe()
        list(site.backend.apply([AddMembers("none", ("ada01",))]))
    assert accounts_read(testbed) == ["", "name=none,root", "name=none,root"]


def test_the_lock_is_held_from_the_first_change_to_the_end_of_the_session(
    testbed: SimulatedSite,
) -> None:
    with testbed.agent() as site:
        with site.backend.session():
            site.backend.observe()
            with exclusive_lock(testbed.lock_file, 0, "nothing was written yet"):
                pass
            list(site.backend.apply([AddMembers("root", ("ada01",))]))
            with (
                pytest.raises(LockHeldError),
                exclusive_lock(testbed.lock_file, 0, "the session goes on"),
            ):
                pytest.fail("two writers at once")
        with exclusive_lock(testbed.lock_file, 0, "the session is over"):
            pass


def test_what_fails_for_good_on_an_earlier_reading_is_tried_on_a_reading_of_its_own(
    testbed: SimulatedSite,
) -> None:
    with testbed.agent() as site, site.backend.session():
        site.backend.observe()
        with testbed.slurm.change() as state:
            state.accounts["late"] = SimAccount("late", "late", "late", "root")
        (outcome,) = site.backend.apply([SetLimits("late", {"cpu": Decimal(60)})])
    assert outcome.result is Result.DONE
    assert testbed.slurm.state.accounts["late"].limits == {"cpu": 60}


def test_an_account_that_got_a_child_since_it_was_read_is_not_deleted(
    testbed: SimulatedSite,
) -> None:
    resource = testbed.created(testbed.project(ada="ada01"))
    with testbed.agent() as site, site.backend.session():
        site.backend.observe()
        with testbed.slurm.change() as state:
            name = resource.backend_id
            state.accounts["child"] = SimAccount("child", "child", "child", name)
        (outcome,) = site.backend.apply([DeleteResource(name)])
    assert outcome.result is Result.FAILED
    assert {name, "child"} <= testbed.accounts


def test_without_a_session_every_change_reads_the_cluster_by_itself(
    testbed: SimulatedSite,
) -> None:
    with testbed.agent() as site:
        site.backend.observe()
        for _ in range(2):
            list(site.backend.apply([AddMembers("none", ("ada01",))]))
    assert accounts_read(testbed) == ["", *["name=none,root"] * 4]
