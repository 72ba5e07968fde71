"""membership_sync on a real Slurm while others work there, or something is broken."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from harness import eventually

if TYPE_CHECKING:
    from integration.membership.conftest import SlurmSite

pytestmark = pytest.mark.slurm


def test_a_dry_run_changes_nothing_and_the_guard_asks_before_it_removes_many(
    slurm_site: SlurmSite,
) -> None:
    ((project, resource),) = slurm_site.open_projects("climate")
    slurm_site.site.write(membership_sync_backend="slurm", safety={"max_removals": 1})
    job = slurm_site.slurm.submit_job(slurm_site.ada, resource.backend_id)
    slurm_site.side.remove_member(project, "ada")
    slurm_site.join(project, "cyd", slurm_site.cyd)
    slurm_site.side.request_deletion("bob")
    slurm_site.side.set_user_limit(resource, "cyd", "cpu", 1)
    slurm_site.side.set_flags(resource, paused=True)
    before, world = slurm_site.slurm.associations(), slurm_site.side.world
    printed = slurm_site.sync("--dry-run")
    assert [f"- {slurm_site.ada}" in printed, f"+ {slurm_site.cyd}" in printed] == [True, True]
    assert slurm_site.slurm.associations() == before
    assert slurm_site.testbed.sandbox.requests.writes() == []
    assert slurm_site.side.world == world
    assert "removals refused" in slurm_site.sync(code=3)
    account = slurm_site.account(resource)
    assert account.users == {slurm_site.ada, slurm_site.bob, slurm_site.cyd}
    assert (account.qos, account.jobs) == (({"paused"}, "paused"), [job])
    assert "Deleted" not in {user.state for user in slurm_site.side.world.offering_users.values()}
    slurm_site.sync("--allow-removals")
    account = slurm_site.account(resource)
    assert (account.users, account.jobs) == ({slurm_site.cyd}, [])
    assert "Deleted" in {user.state for user in slurm_site.side.world.offering_users.values()}


def test_what_somebody_edits_by_hand_is_mended_where_it_is_waldurs(
    slurm_site: SlurmSite, long_qos: str
) -> None:
    (_, resource), (_, other) = slurm_site.open_projects("climate", "ocean")
    slurm_site.side.set_user_limit(resource, "bob", "cpu", 2)
    slurm_site.side.set_flags(resource, paused=True)
    slurm_site.sync()
    in_account = (f"account={resource.backend_id}",)
    member = ("modify", "user", "where", f"name={slurm_site.bob}", *in_account, "set")
    slurm_site.by_hand("remove", "user", "where", f"name={slurm_site.ada}", *in_account)
    slurm_site.by_hand("add", "user", f"name={slurm_site.oper}", *in_account)
    slurm_site.by_hand(*member, "GrpTRESMins=cpu=7,node=9")
    slurm_site.set(resource, "qos=normal", "DefaultQOS=normal")
    slurm_site.set(other, "GrpTRESMins=cpu=900000", f"qos=normal,{long_qos}", "Fairshare=7")
    printed = slurm_site.sync()
    assert slurm_site.oper in printed
    account = slurm_site.account(resource)
    assert account.users == {slurm_site.ada, slurm_site.bob, slurm_site.oper}
    assert account.limit(slurm_site.bob) == "cpu=120000,node=9"
    assert account.qos == ({"paused"}, "paused")
    assert slurm_site.account(other).qos[0] == {"normal", long_qos}
    assert slurm_site.account(other).limit() == "cpu=900000"
    assert slurm_site.side.current(other).limits == {"cpu": 15}
    before = slurm_site.slurm.associations()
    slurm_site.sync()
    assert slurm_site.slurm.associations() == before
    assert slurm_site.testbed.sandbox.requests.writes() == []


def test_a_database_that_goes_away_in_the_middle_of_a_cycle_costs_nothing_but_time(
    slurm_site: SlurmSite,
) -> None:
    ((project, resource),) = slurm_site.open_projects("climate")
    job = slurm_site.slurm.submit_job(slurm_site.ada, resource.backend_id)
    slurm_site.side.remove_member(project, "bob")
    slurm_site.join(project, "cyd", slurm_site.cyd)
    slurm_site.side.set_flags(resource, paused=True)
    faults = slurm_site.testbed.sandbox.faults
    faults.add("*_set_backend_metadata", "latency", seconds=4)
    with slurm_site.site.service("-m", "membership_sync") as service:
        eventually(lambda: not faults.pending, "the request between reading and writing")
        with slurm_site.slurm.slurmdbd_stopped():
            eventually(lambda: "action failed" in service.text, "a failed action")
            eventually(lambda: "cut short" in service.text, "a cycle without the database")
        eventually(
            lambda: slurm_site.account(resource).users == {slurm_site.ada, slurm_site.cyd},
            "the members",
        )
        eventually(lambda: slurm_site.account(resource).qos == ({"paused"}, "paused"), "the pause")
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    assert slurm_site.account(resource).jobs == [job]
    assert slurm_site.side.current(resource).state == "OK"
    assert slurm_site.testbed.sandbox.requests.count("*_erred") == 0


def test_two_agents_in_the_two_modes_do_not_disturb_each_other(slurm_site: SlurmSite) -> None:
    ((project, first),) = slurm_site.open_projects("climate")
    job = slurm_site.slurm.submit_job(slurm_site.ada, first.backend_id)
    side, testbed = slurm_site.side, slurm_site.testbed
    testbed.person("cyd", slurm_site.cyd)
    with (
        slurm_site.site.service("-m", "order_process") as orders,
        slurm_site.site.service("-m", "membership_sync") as members,
    ):
        placed = []
        for number in range(2):
            placed.append(testbed.order(project, f"more {number}", cpu=10))
            placed.append(side.place_update_order(first, {"cpu": 20 + number}))
            leaves, joins = ("bob", "cyd") if number % 2 == 0 else ("cyd", "bob")
            side.remove_member(project, leaves)
            side.add_member(project, joins)
            eventually(
                lambda: all(testbed.state(order) == "done" for order in placed), "all orders"
            )
        side.place_terminate_order(testbed.resource(placed[0]))
        gone = testbed.resource(placed[0]).backend_id
        left = [first, testbed.resource(placed[2])]
        expected = {slurm_site.ada, slurm_site.bob}
        eventually(
            lambda: gone not in slurm_site.slurm.accounts(slurm_site.prefix), "the termination"
        )
        eventually(
            lambda: all(slurm_site.account(each).users == expected for each in left), "the members"
        )
        for service in (orders, members):
            service.send(signal.SIGTERM)
            assert service.wait() == 0
            assert "Traceback" not in service.text
    assert slurm_site.account(first).jobs == [job]
    assert slurm_site.account(first).limit() == "cpu=1260000"
    assert side.current(first).limits == {"cpu": 21}
    assert testbed.sandbox.requests.count("*_erred") == 0
    before = slurm_site.slurm.associations()
    slurm_site.sync()
    assert slurm_site.slurm.associations() == before
