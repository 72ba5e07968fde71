"""Backends that name things themselves, finish orders later, or cannot tell what they have."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

import pytest

from harness import KilledError, KillSwitch
from harness.cloud import Machine, SimulatedCloudSite, a_simulated_cloud_site
from waldur_site_agent.backends import Access, PermanentError, TemporaryError
from waldur_site_agent_sandbox import Order, Resource


def a_cloud_that_tells_little() -> AbstractContextManager[SimulatedCloudSite]:
    return a_simulated_cloud_site(
        tells_members=False,
        tells_limits=False,
        tells_access=False,
        tells_all=False,
        assigns_ids=True,
        recognizes_unfinished=False,
        finishes_later=True,
        needs_facts=True,
    )


def ordered(site: SimulatedCloudSite, **people: str) -> Order:
    return site.order(site.project(**(people or {"ada": "ada01"})), "Ocean", cpu=10)


@pytest.mark.guarantee("orders: The backend takes its time, or names things itself")
def test_waldur_is_told_the_id_that_the_backend_gave() -> None:
    with a_simulated_cloud_site(assigns_ids=True) as site:
        order = ordered(site)
        site.cycle()
        assert site.state(order) == "done"
        assert site.resource(order).backend_id == "VM-100"
        assert site.cloud.machines["VM-100"].members == {"ada01"}
        site.sync()
        assert site.resource(order).backend_id == "VM-100"


def test_what_the_customer_filled_in_reaches_the_backend() -> None:
    with a_simulated_cloud_site() as site:
        project = site.project(ada="ada01")
        side = site.sandbox.customer
        order = side.place_create_order(project, "Ocean", {"cpu": 1}, {"flavour": "large"})
        site.cycle()
        assert site.cloud.machines[site.resource(order).backend_id].flavour == "large"


@pytest.mark.guarantee("orders: The backend takes its time, or names things itself")
def test_an_order_that_the_backend_finishes_later_stays_open_without_trouble() -> None:
    with a_simulated_cloud_site(finishes_later=True) as site:
        site.cloud.slow = {"create"}
        order = ordered(site)
        for _ in range(3):
            report = site.cycle()
            assert not report.has_failures
            assert site.state(order) == "executing"
        assert site.cloud.calls.count("create") == 1
        site.cloud.finish()
        site.cycle()
        assert site.state(order) == "done"
        machine = site.cloud.machines[site.resource(order).backend_id]
        assert machine.members == {"ada01"}
        assert machine.limits == {"cpu": 600000}


@pytest.mark.guarantee("orders: The backend takes its time, or names things itself")
@pytest.mark.parametrize("version", ["7.7.9", "8.1.3"])
@pytest.mark.parametrize("kind", ["limits", "delete"])
def test_updates_and_terminations_may_take_their_time_too(kind: str, version: str) -> None:
    with a_simulated_cloud_site(version, finishes_later=True, tells_limits=False) as site:
        resource = site.created(site.project(ada="ada01"), "Ocean", cpu=10)
        site.cloud.slow = {kind}
        side = site.sandbox.customer
        order = (
            side.place_update_order(resource, {"cpu": 20})
            if kind == "limits"
            else side.place_terminate_order(resource)
        )
        for _ in range(3):
            assert not site.cycle().has_failures
        assert site.state(order) == "executing"
        assert site.cloud.calls.count(kind) == 1
        site.cloud.finish()
        site.cycle()
        assert site.state(order) == "done"
        assert site.cloud.calls.count(kind) == 1


@pytest.mark.guarantee("orders: The backend takes its time, or names things itself")
def test_an_order_errs_when_the_backend_says_that_its_work_failed() -> None:
    with a_simulated_cloud_site(finishes_later=True) as site:
        site.cloud.slow = {"create"}
        order = ordered(site)
        site.cycle()
        site.cloud.finish(PermanentError("no such image; choose another"))
        site.cycle()
        assert site.state(order) == "erred"
        assert "no such image" in site.sandbox.customer.current(order).error_message


def test_an_order_waits_while_the_backend_cannot_say_how_it_stands() -> None:
    with a_simulated_cloud_site(finishes_later=True) as site:
        site.cloud.slow = {"create"}
        order = ordered(site)
        site.cycle()
        site.cloud.finish(TemporaryError("the cloud is away"))
        assert site.cycle().has_failures
        assert site.state(order) == "executing"


@pytest.mark.guarantee("orders: The backend takes its time, or names things itself")
@pytest.mark.parametrize(("hours", "state"), [(None, "executing"), (48.0, "erred")])
def test_time_alone_errs_an_order_only_if_the_site_says_how_long(
    hours: float | None, state: str
) -> None:
    with a_simulated_cloud_site(finishes_later=True) as site:
        site.cloud.slow = {"create"}
        order = ordered(site)
        site.cycle()
        site.timeout_hours = hours
        site.now = lambda: datetime.now(UTC) + timedelta(days=30)
        site.cycle()
        assert site.state(order) == state


@pytest.mark.guarantee("orders: The backend takes its time, or names things itself")
def test_what_is_reported_as_deleted_is_believed_only_when_it_is_gone() -> None:
    with a_simulated_cloud_site(finishes_later=True) as site:
        resource = site.created(site.project(ada="ada01"), "Ocean", cpu=10)
        site.cloud.slow = {"delete"}
        order = site.sandbox.customer.place_terminate_order(resource)
        site.cycle()
        (reference,) = site.cloud.jobs
        site.cloud.finished[reference] = None
        del site.cloud.jobs[reference]
        site.cycle()
        assert site.state(order) == "executing"
        site.cloud.machines.clear()
        site.cycle()
        assert site.state(order) == "done"


def test_a_foreign_resource_of_the_same_name_is_not_taken_over() -> None:
    with a_simulated_cloud_site(recognizes_unfinished=False, tells_all=False) as site:
        first = ordered(site)
        name = f"vm-{site.resource(first).slug}"
        site.cloud.machines[name] = Machine(name)
        site.cycle()
        assert site.state(first) == "erred"
        assert site.cloud.machines[name].order is None


def test_members_are_added_once_and_removed_when_they_leave_although_nobody_tells_them() -> None:
    with a_simulated_cloud_site(tells_members=False, tells_access=False) as site:
        project = site.project(ada="ada01", bob="bob01")
        resource = site.created(project, "Ocean", cpu=10)
        machine = site.cloud.machines[resource.backend_id]
        assert machine.members == set()
        for _ in range(3):
            site.sync()
        assert machine.members == {"ada01", "bob01"}
        assert site.cloud.calls.count("add ada01 bob01") == 1
        machine.members.add("own01")
        side = site.sandbox.customer
        side.remove_member(project, site.person("bob", "bob01"))
        for _ in range(3):
            assert not site.sync().failed
        assert machine.members == {"ada01", "own01"}
        assert site.cloud.calls.count("remove bob01") == 1


def test_a_pause_is_carried_out_once_and_lifted_once_although_nobody_tells_it() -> None:
    with a_simulated_cloud_site(tells_access=False) as site:
        resource = site.settled(site.project(ada="ada01"), "Ocean", cpu=10)
        machine = site.cloud.machines[resource.backend_id]
        for paused, access in ((True, Access.PAUSED), (False, Access.NORMAL)):
            site.sandbox.customer.set_flags(resource, paused=paused)
            for _ in range(3):
                site.sync()
            assert machine.access is access
        assert [c for c in site.cloud.calls if c.startswith("access")] == [
            "access paused",
            "access normal",
        ]


def test_a_quiet_cycle_writes_nothing() -> None:
    with a_cloud_that_tells_little() as site:
        site.settled(site.project(ada="ada01"), "Ocean", cpu=10)
        site.cloud.calls.clear()
        site.cycle()
        site.sync()
        assert set(site.cloud.calls) <= {"observe"}
        assert not site.sandbox.requests.writes()


def _until_done(site: SimulatedCloudSite, order: Order) -> None:
    for _ in range(4):
        site.blade = KillSwitch()
        site.cycle()
        site.cloud.finish()
    assert site.state(order) == "done"
    assert not site.sandbox.requests.count("*_set_state_erred")


def _created(site: SimulatedCloudSite) -> tuple[Order, Resource]:
    order = ordered(site, ada="ada01", bob="bob01")
    return order, site.resource(order)


@pytest.mark.guarantee("orders: The backend takes its time, or names things itself")
@pytest.mark.parametrize("slow", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["create", "limits", "delete"])
def test_killed_at_any_step_an_order_is_carried_out_once(
    kind: str, *, slow: bool, after_effect: bool
) -> None:
    at = 0
    while True:
        at += 1
        with a_cloud_that_tells_little() as site:
            side = site.sandbox.customer
            if kind == "create":
                order, _ = _created(site)
            else:
                resource = site.created(site.project(ada="ada01"), "Ocean", cpu=10)
                order = (
                    side.place_update_order(resource, {"cpu": 20})
                    if kind == "limits"
                    else side.place_terminate_order(resource)
                )
            if slow:
                site.cloud.slow = {kind}
            blade = site.blade = KillSwitch(at=at, after_effect=after_effect)
            with contextlib.suppress(KilledError):
                site.cycle()
            _until_done(site, order)
            machines = list(site.cloud.machines.values())
            where = f"killed at step {at}: {blade.steps[-1]}"
            if kind == "delete":
                assert not machines, where
            else:
                (machine,) = machines
                assert machine.limits == {"cpu": 600000 if kind == "create" else 1200000}, where
                assert site.resource(order).backend_id == machine.id, where
            if not blade.dead:
                assert at > 5
                return


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_killed_at_any_step_of_a_membership_pass_nobody_keeps_or_loses_access(
    *, after_effect: bool
) -> None:
    at = 0
    while True:
        at += 1
        with a_simulated_cloud_site(tells_members=False, tells_access=False) as site:
            side = site.sandbox.customer
            project = site.project(ada="ada01", bob="bob01")
            resource = site.settled(project, "Ocean", cpu=10)
            machine = site.cloud.machines[resource.backend_id]
            side.remove_member(project, site.person("bob", "bob01"))
            cyd = site.person("cyd", "cyd01")
            side.add_member(project, cyd)
            side.set_flags(resource, paused=True)
            blade = site.blade = KillSwitch(at=at, after_effect=after_effect)
            with contextlib.suppress(KilledError):
                site.sync()
            side.remove_member(project, cyd)  # who may have been added, unnoted
            side.set_flags(resource, paused=False)
            site.blade = KillSwitch()
            site.sync()
            where = f"killed at step {at}: {blade.steps[-1]}"
            assert machine.members == {"ada01"}, where
            assert machine.access is Access.NORMAL, where
            assert not site.sync().failed
            if not blade.dead:
                assert at > 5
                return
