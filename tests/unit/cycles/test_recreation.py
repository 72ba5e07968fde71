"""``--recreate``: what a wiped cluster lost is made again, from Waldur."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import Installation, KilledError, KillSwitch, SimulatedSite, a_simulated_site
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_slurm.simulator import SimulatedSlurm
from waldur_site_agent_slurm.simulator.state import SimAccount

MEMBERS = {"ada01", "bob01"}


def wiped(testbed: SimulatedSite) -> SimulatedSite:
    """The same Waldur in front of a new, empty cluster, and an agent that makes it whole."""
    testbed.slurm = SimulatedSlurm()
    return testbed.with_(recreate=True)


def a_busy_site(testbed: SimulatedSite) -> tuple[Resource, Resource]:
    """Two resources with limits, one of them paused, and a member with a limit."""
    side = testbed.sandbox.customer
    people = {"ada": "ada01", "bob": "bob01"}
    ocean = testbed.settled(testbed.project("ocean", **people), "Ocean", cpu=10, mem=2)
    ice = testbed.settled(testbed.project("ice", **people), "Ice", cpu=5)
    side.set_user_limit(ocean, "bob", "cpu", 2)
    side.set_flags(ice, paused=True)
    testbed.sync()
    return side.current(ocean), side.current(ice)


def picture(testbed: SimulatedSite) -> dict[str, Any]:
    """What the cluster has of our accounts."""
    return {
        name: (a.parent, a.organization, a.limits, a.qos, a.members)
        for name, a in testbed.slurm.state.accounts.items()
        if name != "root"
    }


def test_accounts_limits_members_and_access_are_as_before(testbed: SimulatedSite) -> None:
    ocean, ice = a_busy_site(testbed)
    before = picture(testbed)
    site = wiped(testbed)
    report = site.sync()
    assert not report.failed, report.failures
    assert picture(site) == before
    assert site.slurm.state.accounts[ice.backend_id].qos == ["paused"]
    assert site.members_of(ocean) == MEMBERS
    site.forget()
    again = site.with_(recreate=False).sync()
    assert not again.membership.plan
    assert site.writing_commands == 0


def test_a_site_that_keeps_closed_accounts_gets_its_accounts_back_too(
    testbed: SimulatedSite,
) -> None:
    testbed.settings["soft_delete"] = True
    a_busy_site(testbed)
    before = picture(testbed)
    site = wiped(testbed)
    assert not site.sync().failed
    assert picture(site) == before


def test_a_paused_resource_gets_its_qos_back_later(testbed: SimulatedSite) -> None:
    _, ice = a_busy_site(testbed)
    site = wiped(testbed)
    site.sync()
    site.sandbox.customer.set_flags(ice, paused=False)
    assert not site.sync().failed
    assert site.slurm.state.accounts[ice.backend_id].qos == []


def test_the_plan_shows_everything_and_changes_nothing(testbed: SimulatedSite) -> None:
    ocean, ice = a_busy_site(testbed)
    site = wiped(testbed)
    report = site.sync(dry_run=True)
    made = [s for s in report.membership.plan.steps if type(s.action).__name__ == "CreateResource"]
    assert {s.action.resource for s in made} == {  # type: ignore[union-attr]
        ocean.backend_id,
        ice.backend_id,
    }
    assert site.accounts == set()


def test_without_the_option_nothing_is_made(testbed: SimulatedSite) -> None:
    a_busy_site(testbed)
    site = wiped(testbed).with_(recreate=False)
    report = site.sync()
    assert "2 of 2 accounts are missing" in "".join(report.failures)
    assert site.accounts == set()


def test_an_erred_resource_is_ok_again(testbed: SimulatedSite) -> None:
    people = testbed.project("ocean", ada="ada01")
    lost = testbed.settled(people, "Lost", cpu=1)
    for number in range(2):
        testbed.settled(people, f"Kept {number}", cpu=1)
    with testbed.slurm.change() as state:
        del state.accounts[lost.backend_id]
    testbed.sync()
    assert testbed.sandbox.customer.current(lost).state == "Erred"
    assert not testbed.with_(recreate=True).sync().failed
    assert testbed.sandbox.customer.current(lost).state == "OK"
    assert testbed.members_of(lost) == {"ada01"}


def test_an_account_that_somebody_else_made_meanwhile_is_left_alone(
    testbed: SimulatedSite,
) -> None:
    ocean, _ = a_busy_site(testbed)
    site = wiped(testbed)
    with site.slurm.change() as state:
        state.accounts["p_ocean"] = SimAccount("p_ocean", "x", "physics", "root")
    report = site.sync()
    assert 'exists with organization "physics"' in "".join(report.failures)
    assert ocean.backend_id not in site.accounts
    assert site.slurm.state.accounts["p_ocean"].members == {}


def test_an_account_of_several_resources_is_not_guessed(testbed: SimulatedSite) -> None:
    project = testbed.project("ocean", ada="ada01")
    one = testbed.settled(project, "one", cpu=1)
    two = testbed.created(project, "two", cpu=1)
    testbed.sandbox.customer.world.put(replace(two, backend_id=one.backend_id))
    site = wiped(testbed)
    report = site.sync()
    assert "belongs to 2 resources" in "".join(report.failures)
    assert site.accounts == set()


def test_a_resource_that_is_being_terminated_is_not_made_again(testbed: SimulatedSite) -> None:
    resource = testbed.settled(testbed.project("ocean", ada="ada01"), cpu=1)
    testbed.sandbox.customer.world.put(replace(resource, state="Terminating"))
    report = wiped(testbed).sync()
    assert "not made again: the resource is Terminating" in "".join(report.failures)
    assert testbed.accounts == set()


def test_the_option_is_for_one_cycle_of_membership_sync(installation: Installation) -> None:
    for words in (
        ("--recreate",),
        ("-m", "membership_sync", "--recreate"),
        ("--once", "--recreate"),
    ):
        refused = installation.run(*words)
        assert (refused.code, "-m membership_sync --once" in refused.err) == (2, True)


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_killed_at_any_step_the_next_run_completes_it(tmp_path: Path, after_effect: bool) -> None:
    with a_simulated_site(tmp_path / "lock") as bare:
        resource = bare.created(bare.project(ada="ada01", bob="bob01"), cpu=10)
        bare.sandbox.customer.set_user_limit(resource, "bob", "cpu", 2)
        bare.sandbox.customer.set_flags(resource, paused=True)
        bare.sync()
        before = picture(bare)
    number, steps = 0, 1
    while number <= steps:
        site = wiped(bare.copy(tmp_path / f"{number}.lock"))
        blade = KillSwitch(at=number, after_effect=after_effect)
        agent = site.with_(runner=blade.runner, transport=blade.transport)
        if number == 0:
            agent.sync()
            steps = len(blade.steps)
        else:
            with pytest.raises(KilledError):
                agent.sync()
            site.sync()
        assert picture(site) == before, f"killed at step {number}: {blade.steps[-1]}"
        number += 1
    assert steps > 15
