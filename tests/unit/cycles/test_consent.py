"""``require_consent``: only those who consented to the terms of the offering are members."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import KilledError, KillSwitch, SimulatedSite, a_simulated_site
from waldur_site_agent_sandbox import Resource


@pytest.fixture
def site(testbed: SimulatedSite) -> SimulatedSite:
    return testbed.with_(require_consent=True)


def shared(site: SimulatedSite) -> Resource:
    """A resource of two people who have both consented."""
    return site.settled(site.project(ada="ada01", bob="bob01"), cpu=1)


def test_an_order_lets_in_only_those_who_have_consented(site: SimulatedSite) -> None:
    project = site.project(ada="ada01", bob="bob01")
    site.sandbox.customer.set_consent("bob", given=False)
    resource = site.created(project, cpu=1)
    assert site.members_of(resource) == {"ada01"}
    site.sandbox.customer.set_consent("bob", given=True)
    assert not site.sync().failed
    assert site.members_of(resource) == {"ada01", "bob01"}


def test_who_revokes_consent_leaves_and_the_plan_says_why(site: SimulatedSite) -> None:
    resource = shared(site)
    site.sandbox.customer.set_consent("bob", given=False)
    (step,) = site.sync(dry_run=True).membership.plan.steps
    assert step.reasons == {"bob01": "has not consented to the terms of the offering"}
    assert not site.sync().failed
    assert site.members_of(resource) == {"ada01"}


def test_without_the_switch_consent_is_not_asked_for(testbed: SimulatedSite) -> None:
    resource = shared(testbed)
    testbed.sandbox.customer.set_consent("bob", given=False)
    assert not testbed.sync().membership.plan
    assert testbed.members_of(resource) == {"ada01", "bob01"}


def test_service_accounts_need_no_consent(site: SimulatedSite) -> None:
    resource = shared(site)
    site.sandbox.customer.add_service_account("climate", "svc01")
    site.sync()
    assert site.members_of(resource) == {"ada01", "bob01", "svc01"}


def test_consent_that_only_an_old_list_lacks_costs_nobody_anything(site: SimulatedSite) -> None:
    resource = shared(site)
    site.sandbox.customer.set_consent("bob", given=False)
    site.sandbox.customer.set_consent("bob", given=True)
    with site.lists_a_moment_old():
        site.sync()
    assert site.members_of(resource) == {"ada01", "bob01"}


def test_a_list_that_cannot_be_read_moves_nobody(site: SimulatedSite) -> None:
    resource = shared(site)
    site.sandbox.customer.set_consent("bob", given=False)
    site.sandbox.faults.add("marketplace_offering_users_list", "status", status=503, times=None)
    with pytest.raises(Exception, match="503"):
        site.sync()
    assert site.members_of(resource) == {"ada01", "bob01"}


def test_a_server_that_does_not_show_consent_moves_nobody_and_is_reported(tmp_path: Path) -> None:
    with a_simulated_site(tmp_path / "lock", "7.7.9") as old:
        project = old.project(ada="ada01", bob="bob01")
        resource = old.settled(project, cpu=1)
        site = old.with_(require_consent=True)
        site.sandbox.customer.remove_member(project, "bob")
        site.sandbox.customer.add_member(project, site.person("cyd", "cyd01"))
        report = site.sync()
        assert "does not show who has consented" in "".join(report.failures)
        assert site.members_of(resource) == {"ada01", "bob01"}
        order = site.order(project, "more", cpu=1)
        (result,) = site.cycle().results
        assert "does not show who has consented" in result.reason
        assert (site.state(order), site.members(order)) == ("executing", set())


def test_an_offering_without_terms_moves_nobody(site: SimulatedSite) -> None:
    resource = shared(site)
    site.sandbox.customer.set_terms(has_terms=False)
    report = site.sync()
    assert "no active terms of service" in "".join(report.failures)
    assert site.members_of(resource) == {"ada01", "bob01"}


@pytest.mark.parametrize("after_effect", [False, True], ids=["before", "after"])
def test_killed_at_any_step_exactly_those_who_consented_are_members(
    site: SimulatedSite, after_effect: bool
) -> None:
    resource = shared(site)
    side = site.sandbox.customer
    number, steps = 0, 1
    while number <= steps:
        side.set_consent("ada", given=False)
        blade = KillSwitch(at=number, after_effect=after_effect)
        agent = site.with_(runner=blade.runner, transport=blade.transport)
        if number == 0:
            agent.sync()
            steps = len(blade.steps)
        else:
            with pytest.raises(KilledError):
                agent.sync()
            site.sync()
        where = f"killed at step {number}: {blade.steps[-1]}"
        assert site.members_of(resource) == {"bob01"}, where
        side.set_consent("ada", given=True)
        site.sync()
        assert site.members_of(resource) == {"ada01", "bob01"}, where
        number += 1
    assert steps > 8
