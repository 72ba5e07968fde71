"""Budgets of a periodic policy: opened once, carried over, reset once, and given back."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID

import pytest

from harness import SimulatedSite
from harness.budgets import START, a_budget, at, budget_of, next_quarter, resets, use
from waldur_site_agent.cli.plan import report_text
from waldur_site_agent.events.messages import Event, read_message
from waldur_site_agent.events.registration import object_types_of
from waldur_site_agent.model.backend import ResourceScope
from waldur_site_agent_sandbox import Resource
from waldur_site_agent_slurm.simulator import Outage

K_HOUR = 60_000


@pytest.fixture
def site(testbed: SimulatedSite) -> SimulatedSite:
    return a_budget(testbed)


def sold(site: SimulatedSite) -> Resource:
    """A resource that is there, with the budget of the first period."""
    resource = site.created(site.project(ada="ada01"), cpu=10, mem=2)
    site.sandbox.customer.add_periodic_policy(grace_ratio=0, tres_billing_enabled=False)
    site.sync()
    site.forget()
    return site.sandbox.customer.current(resource)


def is_quiet(site: SimulatedSite) -> bool:
    site.forget()
    site.sync()
    return site.writing_commands == 0 and site.sandbox.requests.writes() == []


@pytest.mark.guarantee("budgets: Carry-over and reset")
def test_three_periods_with_carry_over_and_a_reset_each(site: SimulatedSite) -> None:
    resource = sold(site)
    assert budget_of(site, resource)["cpu"] == 15 * K_HOUR  # nothing was used before
    use(site, resource, 8 * K_HOUR)
    next_quarter(site)
    site.sync()
    assert budget_of(site, resource)["cpu"] == 12 * K_HOUR  # 2 of 10 k-Hours are left
    assert [resource.backend_id] == [name for _, name in resets(site)]
    use(site, resource, 14 * K_HOUR)
    site.sync()
    assert is_quiet(site)
    next_quarter(site)
    site.sync()
    assert budget_of(site, resource)["cpu"] == 10 * K_HOUR
    assert len(resets(site)) == 2
    assert is_quiet(site)
    assert site.sandbox.customer.current(resource).limits == {"cpu": 10, "mem": 2}


def test_a_new_account_gets_its_budget_without_a_reset(site: SimulatedSite) -> None:
    resource = sold(site)
    assert resets(site) == []
    assert site.slurm.state.accounts[resource.backend_id].fairshare == "6"  # (15 + 3) / 3
    assert is_quiet(site)


@pytest.mark.guarantee("budgets: Carry-over and reset")
def test_what_is_used_before_a_late_reset_is_taken_off_the_budget(site: SimulatedSite) -> None:
    resource = sold(site)
    use(site, resource, 1 * K_HOUR)
    next_quarter(site)
    use(site, resource, 3 * K_HOUR)  # the agent was away
    at(site, site.now() + timedelta(days=9))
    site.sync()
    assert len(resets(site)) == 1
    assert budget_of(site, resource)["cpu"] == 12 * K_HOUR
    assert is_quiet(site)


def test_usage_that_waldur_does_not_have_yet_is_not_carried_over(site: SimulatedSite) -> None:
    resource = sold(site)
    use(site, resource, 7 * K_HOUR)
    site.sandbox.customer.put_usage(resource, "cpu", "1", START.date())
    next_quarter(site)
    site.sync()
    assert budget_of(site, resource)["cpu"] == 13 * K_HOUR


def test_usage_that_only_waldur_has_is_not_carried_over(site: SimulatedSite) -> None:
    resource = sold(site)
    site.sandbox.customer.put_usage(resource, "cpu", "9", START.date())
    next_quarter(site)
    site.sync()
    assert budget_of(site, resource)["cpu"] == 11 * K_HOUR


def test_nothing_opens_in_the_first_minutes_of_a_period(site: SimulatedSite) -> None:
    resource = sold(site)
    use(site, resource, 8 * K_HOUR)
    next_quarter(site, after=timedelta(minutes=5))
    report = site.sync()
    assert report.failures == ()
    assert (budget_of(site, resource)["cpu"], resets(site)) == (15 * K_HOUR, [])
    at(site, site.now() + timedelta(minutes=6))
    site.sync()
    assert (budget_of(site, resource)["cpu"], len(resets(site))) == (12 * K_HOUR, 1)


def test_a_wrong_clock_opens_no_period(site: SimulatedSite) -> None:
    resource = sold(site)
    use(site, resource, 8 * K_HOUR)
    ahead = site.with_(now=lambda: site.sandbox.clock.now() + timedelta(days=92))
    report = ahead.sync()
    assert "this machine's clock says" in " ".join(report.failures)
    assert (budget_of(site, resource)["cpu"], resets(site)) == (15 * K_HOUR, [])


@pytest.mark.guarantee("budgets: Failures")
def test_nothing_is_noted_or_set_when_the_usage_could_not_be_reset(site: SimulatedSite) -> None:
    resource = sold(site)
    use(site, resource, 8 * K_HOUR)
    next_quarter(site)
    with site.slurm.outage(Outage.NO_PERMISSION):
        report = site.sync()
    assert report.failures
    assert budget_of(site, resource)["cpu"] == 15 * K_HOUR
    site.sync()
    assert (budget_of(site, resource)["cpu"], len(resets(site))) == (12 * K_HOUR, 1)


def test_a_note_that_waldur_refuses_keeps_the_old_budget(site: SimulatedSite) -> None:
    resource = sold(site)
    use(site, resource, 8 * K_HOUR)
    next_quarter(site)
    site.sandbox.faults.add("*_set_backend_metadata", "status", status=500, times=None)
    site.sync()
    assert budget_of(site, resource)["cpu"] == 15 * K_HOUR
    site.sandbox.faults.clear()
    use(site, resource, 2 * K_HOUR)
    site.sync()
    assert len(resets(site)) == 1  # it is seen that it was reset
    assert budget_of(site, resource)["cpu"] == 12 * K_HOUR


def test_a_plan_shows_reset_budget_and_note_and_changes_nothing(site: SimulatedSite) -> None:
    resource = sold(site)
    use(site, resource, 8 * K_HOUR)
    next_quarter(site)
    text = report_text(site.sync(dry_run=True))
    assert "usage reset    2031-Q2 begins; of earlier periods cpu 480000 is counted" in text
    assert "cpu 900000 -> 720000  10 k-Hours for 2031-Q2, 2 carried over" in text
    assert "metadata budget" in text
    assert (budget_of(site, resource)["cpu"], resets(site)) == (15 * K_HOUR, [])


@pytest.mark.guarantee("budgets: The end of a policy")
@pytest.mark.parametrize("limits", ["backend", "waldur", "report"])
def test_when_a_policy_ends_the_sold_limits_come_back_and_are_never_reported(
    site: SimulatedSite, limits: str
) -> None:
    site = site.with_(limits=limits)
    resource = sold(site)
    (policy,) = site.sandbox.customer.world.periodic_policies.values()
    site.sandbox.customer.remove_periodic_policy(policy)
    site.sync()
    account = site.slurm.state.accounts[resource.backend_id]
    assert account.limits == {"cpu": 10 * K_HOUR, "mem": 2 * 61440}
    assert account.fairshare == "1"
    assert site.sandbox.customer.current(resource).limits == {"cpu": 10, "mem": 2}
    assert "budget" not in site.sandbox.customer.current(resource).backend_metadata
    assert is_quiet(site)


def test_budgets_that_are_turned_off_are_not_reported_as_limits(site: SimulatedSite) -> None:
    resource = sold(site)
    (policy,) = site.sandbox.customer.world.periodic_policies.values()
    site.sandbox.customer.remove_periodic_policy(policy)
    site.with_(settings={}).sync()
    assert site.sandbox.customer.current(resource).limits == {"cpu": 10, "mem": 2}


def test_a_policy_that_changes_within_a_period_changes_the_budget_without_a_reset(
    site: SimulatedSite,
) -> None:
    resource = sold(site)
    use(site, resource, 1 * K_HOUR)
    (policy,) = site.sandbox.customer.world.periodic_policies.values()
    site.sandbox.customer.edit(policy, grace_ratio=0.5, carryover_factor=20)
    site.sync()
    assert (budget_of(site, resource)["cpu"], resets(site)) == (18 * K_HOUR, [])
    assert is_quiet(site)


@pytest.mark.guarantee("budgets: Orders")
def test_an_order_changes_the_budget_and_not_the_bare_limit(site: SimulatedSite) -> None:
    resource = sold(site)
    site.sandbox.customer.place_update_order(resource, {"cpu": 20, "mem": 2})
    site.cycle()
    assert budget_of(site, resource)["cpu"] == 30 * K_HOUR
    site.sync()
    assert budget_of(site, resource)["cpu"] == 30 * K_HOUR
    assert is_quiet(site)


def test_an_order_at_the_turn_of_a_period_waits_for_nothing(site: SimulatedSite) -> None:
    resource = sold(site)
    use(site, resource, 8 * K_HOUR)
    next_quarter(site)
    order = site.sandbox.customer.place_update_order(resource, {"cpu": 20, "mem": 2})
    site.cycle()
    assert site.state(order) == "done"
    site.sync()
    assert (budget_of(site, resource)["cpu"], len(resets(site))) == (30 * K_HOUR, 1)


@pytest.mark.guarantee("budgets: Results")
def test_staff_reports_each_change_once_and_a_failure_when_it_is_new(site: SimulatedSite) -> None:
    site = site.with_(token=site.sandbox.staff().token)
    resource = sold(site)
    (result,) = site.sandbox.customer.policy_results(resource)
    assert (result.success, result.commands_executed) == (
        True,
        ("fairshare=6", "GrpTRESMins=cpu=900000,mem=184320"),
    )
    site.sync()
    assert len(site.sandbox.customer.policy_results(resource)) == 1
    (policy,) = site.sandbox.customer.world.periodic_policies.values()
    site.sandbox.customer.edit(policy, limit_type="GrpTRES")
    site.sync()
    _, failed = site.sandbox.customer.policy_results(resource)
    assert not failed.success
    assert "GrpTRES of the periodic policy does not limit" in failed.error_message


def test_a_provider_may_not_report_results_and_nothing_depends_on_it(site: SimulatedSite) -> None:
    resource = sold(site)
    assert site.sandbox.customer.policy_results(resource) == []
    assert budget_of(site, resource)["cpu"] == 15 * K_HOUR


def test_limits_of_single_jobs_leave_the_others_alone(site: SimulatedSite) -> None:
    resource = site.created(site.project(ada="ada01"), cpu=10, mem=2)
    site.sandbox.customer.add_periodic_policy(
        grace_ratio=0, tres_billing_enabled=False, limit_type="MaxTRESMins"
    )
    site.sync()
    account = site.slurm.state.accounts[resource.backend_id]
    assert account.job_limits == {"cpu": 15 * K_HOUR, "mem": 3 * 61440}
    assert account.limits == {"cpu": 10 * K_HOUR, "mem": 2 * 61440}
    assert is_quiet(site)


QOS = {
    "qos_paused": "",
    "qos_downscaled": "",
    "qos_management": {"enabled": True, "skip_qos_swap": True, "apply_limits_to_qos": True},
}


def test_budgets_on_a_qos_are_set_reset_and_read_there(site: SimulatedSite) -> None:
    site = site.with_(settings={**site.settings, **QOS})
    resource = sold(site)
    name = resource.backend_id
    assert site.slurm.state.qos_limits[name]["cpu"] == 15 * K_HOUR
    use(site, resource, 8 * K_HOUR)
    next_quarter(site)
    site.sync()
    assert site.slurm.state.qos_limits[name]["cpu"] == 12 * K_HOUR
    assert [name] == list(site.slurm.state.qos_counted_since)
    assert is_quiet(site)


def test_policies_that_cannot_be_read_change_nothing(site: SimulatedSite) -> None:
    resource = sold(site)
    site.sandbox.faults.add("*_slurm_periodic_*_list", "status", status=500, times=None)
    site.sync()
    assert budget_of(site, resource)["cpu"] == 15 * K_HOUR
    assert site.sandbox.customer.current(resource).limits == {"cpu": 10, "mem": 2}


def test_work_is_a_constant_where_nothing_changed(site: SimulatedSite) -> None:
    first = sold(site)
    assert is_quiet(site)
    of_one = (len(site.sandbox.requests), sum(site.slurm.commands_run.values()))
    for number in range(3):
        site.created(site.project(f"p{number}"), f"run{number}", cpu=1, mem=1)
    site.sync()
    assert is_quiet(site)
    of_four = (len(site.sandbox.requests), sum(site.slurm.commands_run.values()))
    assert of_one[1] == of_four[1]
    assert of_four[0] - of_one[0] <= 3 * 2  # a team each
    assert first.backend_id in site.slurm.state.accounts


def test_an_account_that_is_made_again_opens_the_period_again(site: SimulatedSite) -> None:
    resource = sold(site)
    use(site, resource, 4 * K_HOUR)
    with site.slurm.change() as cluster:
        del cluster.accounts[resource.backend_id]
    site.with_(recreate=True).sync()
    assert "budget" not in site.sandbox.customer.current(resource).backend_metadata
    site.sync()
    # what the lost account had used of the period is not counted any more, so it is taken off
    assert budget_of(site, resource)["cpu"] == 11 * K_HOUR
    assert resets(site) == []


def test_an_event_of_waldur_leads_to_the_resource_and_is_not_carried_out(
    site: SimulatedSite,
) -> None:
    resource = sold(site)
    assert site.sandbox.customer.send_periodic_limits() == 1
    (event,) = site.sandbox.events.of("resource_periodic_limits")
    body = json.dumps({**event.payload, "object_type": "resource_periodic_limits"}).encode()
    found = read_message(body, "queue", site.offering().waldur_offering_uuid)
    assert isinstance(found, Event)
    assert found.scope == ResourceScope(UUID(resource.uuid))
    assert "resource_periodic_limits" in object_types_of(
        site.offering().model_copy(update={"membership_sync_backend": "slurm"})
    )
    assert site.sandbox.customer.send_periodic_limits() == 0  # unchanged, so not sent again
