"""membership_sync on a real Slurm while others work there, or something is broken."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from harness import eventually

if TYPE_CHECKING:
    from integration.membership.conftest import Town

pytestmark = pytest.mark.slurm


def test_a_dry_run_changes_nothing_and_the_guard_asks_before_it_removes_many(town: Town) -> None:
    ((project, resource),) = town.open_projects("climate")
    town.site.write(membership_sync_backend="slurm", safety={"max_removals": 1})
    job = town.slurm.submit_job(town.ada, resource.backend_id)
    town.side.remove_member(project, "ada")
    town.join(project, "cyd", town.cyd)
    town.side.request_deletion("bob")
    town.side.set_user_limit(resource, "cyd", "cpu", 1)
    town.side.set_flags(resource, paused=True)
    before, world = town.slurm.associations(), town.side.world
    printed = town.sync("--dry-run")
    assert [f"- {town.ada}" in printed, f"+ {town.cyd}" in printed] == [True, True]
    assert town.slurm.associations() == before
    assert town.house.sandbox.requests.writes() == []
    assert town.side.world == world
    assert "removals refused" in town.sync(code=3)
    account = town.account(resource)
    assert account.users == {town.ada, town.bob, town.cyd}
    assert (account.qos, account.jobs) == (({"paused"}, "paused"), [job])
    assert "Deleted" not in {user.state for user in town.side.world.offering_users.values()}
    town.sync("--allow-removals")
    account = town.account(resource)
    assert (account.users, account.jobs) == ({town.cyd}, [])
    assert "Deleted" in {user.state for user in town.side.world.offering_users.values()}


def test_what_somebody_edits_by_hand_is_mended_where_it_is_waldurs(
    town: Town, long_qos: str
) -> None:
    (_, resource), (_, other) = town.open_projects("climate", "ocean")
    town.side.set_user_limit(resource, "bob", "cpu", 2)
    town.side.set_flags(resource, paused=True)
    town.sync()
    in_account = (f"account={resource.backend_id}",)
    member = ("modify", "user", "where", f"name={town.bob}", *in_account, "set")
    town.by_hand("remove", "user", "where", f"name={town.ada}", *in_account)
    town.by_hand("add", "user", f"name={town.oper}", *in_account)
    town.by_hand(*member, "GrpTRESMins=cpu=7,node=9")
    town.set(resource, "qos=normal", "DefaultQOS=normal")
    town.set(other, "GrpTRESMins=cpu=900000", f"qos=normal,{long_qos}", "Fairshare=7")
    printed = town.sync()
    assert town.oper in printed
    account = town.account(resource)
    assert account.users == {town.ada, town.bob, town.oper}
    assert account.limit(town.bob) == "cpu=120000,node=9"
    assert account.qos == ({"paused"}, "paused")
    assert town.account(other).qos[0] == {"normal", long_qos}
    assert town.account(other).limit() == "cpu=900000"
    assert town.side.current(other).limits == {"cpu": 15}
    before = town.slurm.associations()
    town.sync()
    assert town.slurm.associations() == before
    assert town.house.sandbox.requests.writes() == []


def test_a_database_that_goes_away_in_the_middle_of_a_cycle_costs_nothing_but_time(
    town: Town,
) -> None:
    ((project, resource),) = town.open_projects("climate")
    job = town.slurm.submit_job(town.ada, resource.backend_id)
    town.side.remove_member(project, "bob")
    town.join(project, "cyd", town.cyd)
    town.side.set_flags(resource, paused=True)
    faults = town.house.sandbox.faults
    faults.add("*_set_backend_metadata", "latency", seconds=4)
    with town.site.service("-m", "membership_sync") as service:
        eventually(lambda: not faults.pending, "the request between reading and writing")
        with town.slurm.slurmdbd_stopped():
            eventually(lambda: "action failed" in service.text, "a failed action")
            eventually(lambda: "cut short" in service.text, "a cycle without the database")
        eventually(lambda: town.account(resource).users == {town.ada, town.cyd}, "the members")
        eventually(lambda: town.account(resource).qos == ({"paused"}, "paused"), "the pause")
        service.send(signal.SIGTERM)
        assert service.wait() == 0
    assert town.account(resource).jobs == [job]
    assert town.side.current(resource).state == "OK"
    assert town.house.sandbox.requests.count("*_erred") == 0


def test_two_agents_in_the_two_modes_do_not_disturb_each_other(town: Town) -> None:
    ((project, first),) = town.open_projects("climate")
    job = town.slurm.submit_job(town.ada, first.backend_id)
    side, house = town.side, town.house
    house.person("cyd", town.cyd)
    with (
        town.site.service("-m", "order_process") as orders,
        town.site.service("-m", "membership_sync") as members,
    ):
        placed = []
        for number in range(2):
            placed.append(house.order(project, f"more {number}", cpu=10))
            placed.append(side.place_update_order(first, {"cpu": 20 + number}))
            leaves, joins = ("bob", "cyd") if number % 2 == 0 else ("cyd", "bob")
            side.remove_member(project, leaves)
            side.add_member(project, joins)
            eventually(lambda: all(house.state(order) == "done" for order in placed), "all orders")
        side.place_terminate_order(house.resource(placed[0]))
        gone = house.resource(placed[0]).backend_id
        left = [first, house.resource(placed[2])]
        expected = {town.ada, town.bob}
        eventually(lambda: gone not in town.slurm.accounts(town.prefix), "the termination")
        eventually(
            lambda: all(town.account(each).users == expected for each in left), "the members"
        )
        for service in (orders, members):
            service.send(signal.SIGTERM)
            assert service.wait() == 0
            assert "Traceback" not in service.text
    assert town.account(first).jobs == [job]
    assert town.account(first).limit() == "cpu=1260000"
    assert side.current(first).limits == {"cpu": 21}
    assert house.sandbox.requests.count("*_erred") == 0
    before = town.slurm.associations()
    town.sync()
    assert town.slurm.associations() == before
