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
def house(testbed: SimulatedSite) -> SimulatedSite:
    return a_budget(testbed)


def sold(house: SimulatedSite) -> Resource:
    """A resource that is there, with the budget of the first period."""
    resource = house.created(house.project(ada="ada01"), cpu=10, mem=2)
    house.sandbox.customer.add_periodic_policy(grace_ratio=0, tres_billing_enabled=False)
    house.sync()
    house.forget()
    return house.sandbox.customer.current(resource)


def is_quiet(house: SimulatedSite) -> bool:
    house.forget()
    house.sync()
    return house.writing_commands == 0 and house.sandbox.requests.writes() == []


@pytest.mark.guarantee("budgets: Carry-over and reset")
def test_three_periods_with_carry_over_and_a_reset_each(house: SimulatedSite) -> None:
    resource = sold(house)
    assert budget_of(house, resource)["cpu"] == 15 * K_HOUR  # nothing was used before
    use(house, resource, 8 * K_HOUR)
    next_quarter(house)
    house.sync()
    assert budget_of(house, resource)["cpu"] == 12 * K_HOUR  # 2 of 10 k-Hours are left
    assert [resource.backend_id] == [name for _, name in resets(house)]
    use(house, resource, 14 * K_HOUR)
    house.sync()
    assert is_quiet(house)
    next_quarter(house)
    house.sync()
    assert budget_of(house, resource)["cpu"] == 10 * K_HOUR
    assert len(resets(house)) == 2
    assert is_quiet(house)
    assert house.sandbox.customer.current(resource).limits == {"cpu": 10, "mem": 2}


def test_a_new_account_gets_its_budget_without_a_reset(house: SimulatedSite) -> None:
    resource = sold(house)
    assert resets(house) == []
    assert house.slurm.state.accounts[resource.backend_id].fairshare == "6"  # (15 + 3) / 3
    assert is_quiet(house)


@pytest.mark.guarantee("budgets: Carry-over and reset")
def test_what_is_used_before_a_late_reset_is_taken_off_the_budget(house: SimulatedSite) -> None:
    resource = sold(house)
    use(house, resource, 1 * K_HOUR)
    next_quarter(house)
    use(house, resource, 3 * K_HOUR)  # the agent was away
    at(house, house.now() + timedelta(days=9))
    house.sync()
    assert len(resets(house)) == 1
    assert budget_of(house, resource)["cpu"] == 12 * K_HOUR
    assert is_quiet(house)


def test_usage_that_waldur_does_not_have_yet_is_not_carried_over(house: SimulatedSite) -> None:
    resource = sold(house)
    use(house, resource, 7 * K_HOUR)
    house.sandbox.customer.put_usage(resource, "cpu", "1", START.date())
    next_quarter(house)
    house.sync()
    assert budget_of(house, resource)["cpu"] == 13 * K_HOUR


def test_usage_that_only_waldur_has_is_not_carried_over(house: SimulatedSite) -> None:
    resource = sold(house)
    house.sandbox.customer.put_usage(resource, "cpu", "9", START.date())
    next_quarter(house)
    house.sync()
    assert budget_of(house, resource)["cpu"] == 11 * K_HOUR


def test_nothing_opens_in_the_first_minutes_of_a_period(house: SimulatedSite) -> None:
    resource = sold(house)
    use(house, resource, 8 * K_HOUR)
    next_quarter(house, after=timedelta(minutes=5))
    report = house.sync()
    assert report.failures == ()
    assert (budget_of(house, resource)["cpu"], resets(house)) == (15 * K_HOUR, [])
    at(house, house.now() + timedelta(minutes=6))
    house.sync()
    assert (budget_of(house, resource)["cpu"], len(resets(house))) == (12 * K_HOUR, 1)


def test_a_wrong_clock_opens_no_period(house: SimulatedSite) -> None:
    resource = sold(house)
    use(house, resource, 8 * K_HOUR)
    ahead = house.with_(now=lambda: house.sandbox.clock.now() + timedelta(days=92))
    report = ahead.sync()
    assert "this machine's clock says" in " ".join(report.failures)
    assert (budget_of(house, resource)["cpu"], resets(house)) == (15 * K_HOUR, [])


@pytest.mark.guarantee("budgets: Failures")
def test_nothing_is_noted_or_set_when_the_usage_could_not_be_reset(house: SimulatedSite) -> None:
    resource = sold(house)
    use(house, resource, 8 * K_HOUR)
    next_quarter(house)
    with house.slurm.outage(Outage.NO_PERMISSION):
        report = house.sync()
    assert report.failures
    assert budget_of(house, resource)["cpu"] == 15 * K_HOUR
    house.sync()
    assert (budget_of(house, resource)["cpu"], len(resets(house))) == (12 * K_HOUR, 1)


def test_a_note_that_waldur_refuses_keeps_the_old_budget(house: SimulatedSite) -> None:
    resource = sold(house)
    use(house, resource, 8 * K_HOUR)
    next_quarter(house)
    house.sandbox.faults.add("*_set_backend_metadata", "status", status=500, times=None)
    house.sync()
    assert budget_of(house, resource)["cpu"] == 15 * K_HOUR
    house.sandbox.faults.clear()
    use(house, resource, 2 * K_HOUR)
    house.sync()
    assert len(resets(house)) == 1  # it is seen that it was reset
    assert budget_of(house, resource)["cpu"] == 12 * K_HOUR


def test_a_plan_shows_reset_budget_and_note_and_changes_nothing(house: SimulatedSite) -> None:
    resource = sold(house)
    use(house, resource, 8 * K_HOUR)
    next_quarter(house)
    text = report_text(house.sync(dry_run=True))
    assert "usage reset    2031-Q2 begins; of earlier periods cpu 480000 is counted" in text
    assert "cpu 900000 -> 720000  10 k-Hours for 2031-Q2, 2 carried over" in text
    assert "metadata budget" in text
    assert (budget_of(house, resource)["cpu"], resets(house)) == (15 * K_HOUR, [])


@pytest.mark.guarantee("budgets: The end of a policy")
@pytest.mark.parametrize("limits", ["backend", "waldur", "report"])
def test_when_a_policy_ends_the_sold_limits_come_back_and_are_never_reported(
    house: SimulatedSite, limits: str
) -> None:
    house = house.with_(limits=limits)
    resource = sold(house)
    (policy,) = house.sandbox.customer.world.periodic_policies.values()
    house.sandbox.customer.remove_periodic_policy(policy)
    house.sync()
    account = house.slurm.state.accounts[resource.backend_id]
    assert account.limits == {"cpu": 10 * K_HOUR, "mem": 2 * 61440}
    assert account.fairshare == "1"
    assert house.sandbox.customer.current(resource).limits == {"cpu": 10, "mem": 2}
    assert "budget" not in house.sandbox.customer.current(resource).backend_metadata
    assert is_quiet(house)


def test_budgets_that_are_turned_off_are_not_reported_as_limits(house: SimulatedSite) -> None:
    resource = sold(house)
    (policy,) = house.sandbox.customer.world.periodic_policies.values()
    house.sandbox.customer.remove_periodic_policy(policy)
    house.with_(settings={}).sync()
    assert house.sandbox.customer.current(resource).limits == {"cpu": 10, "mem": 2}


def test_a_policy_that_changes_within_a_period_changes_the_budget_without_a_reset(
    house: SimulatedSite,
) -> None:
    resource = sold(house)
    use(house, resource, 1 * K_HOUR)
    (policy,) = house.sandbox.customer.world.periodic_policies.values()
    house.sandbox.customer.edit(policy, grace_ratio=0.5, carryover_factor=20)
    house.sync()
    assert (budget_of(house, resource)["cpu"], resets(house)) == (18 * K_HOUR, [])
    assert is_quiet(house)


@pytest.mark.guarantee("budgets: Orders")
def test_an_order_changes_the_budget_and_not_the_bare_limit(house: SimulatedSite) -> None:
    resource = sold(house)
    house.sandbox.customer.place_update_order(resource, {"cpu": 20, "mem": 2})
    house.cycle()
    assert budget_of(house, resource)["cpu"] == 30 * K_HOUR
    house.sync()
    assert budget_of(house, resource)["cpu"] == 30 * K_HOUR
    assert is_quiet(house)


def test_an_order_at_the_turn_of_a_period_waits_for_nothing(house: SimulatedSite) -> None:
    resource = sold(house)
    use(house, resource, 8 * K_HOUR)
    next_quarter(house)
    order = house.sandbox.customer.place_update_order(resource, {"cpu": 20, "mem": 2})
    house.cycle()
    assert house.state(order) == "done"
    house.sync()
    assert (budget_of(house, resource)["cpu"], len(resets(house))) == (30 * K_HOUR, 1)


@pytest.mark.guarantee("budgets: Results")
def test_staff_reports_each_change_once_and_a_failure_when_it_is_new(house: SimulatedSite) -> None:
    house = house.with_(token=house.sandbox.staff().token)
    resource = sold(house)
    (result,) = house.sandbox.customer.policy_results(resource)
    assert (result.success, result.commands_executed) == (
        True,
        ("fairshare=6", "GrpTRESMins=cpu=900000,mem=184320"),
    )
    house.sync()
    assert len(house.sandbox.customer.policy_results(resource)) == 1
    (policy,) = house.sandbox.customer.world.periodic_policies.values()
    house.sandbox.customer.edit(policy, limit_type="GrpTRES")
    house.sync()
    _, failed = house.sandbox.customer.policy_results(resource)
    assert not failed.success
    assert "GrpTRES of the periodic policy does not limit" in failed.error_message


def test_a_provider_may_not_report_results_and_nothing_depends_on_it(house: SimulatedSite) -> None:
    resource = sold(house)
    assert house.sandbox.customer.policy_results(resource) == []
    assert budget_of(house, resource)["cpu"] == 15 * K_HOUR


def test_limits_of_single_jobs_leave_the_others_alone(house: SimulatedSite) -> None:
    resource = house.created(house.project(ada="ada01"), cpu=10, mem=2)
    house.sandbox.customer.add_periodic_policy(
        grace_ratio=0, tres_billing_enabled=False, limit_type="MaxTRESMins"
    )
    house.sync()
    account = house.slurm.state.accounts[resource.backend_id]
    assert account.job_limits == {"cpu": 15 * K_HOUR, "mem": 3 * 61440}
    assert account.limits == {"cpu": 10 * K_HOUR, "mem": 2 * 61440}
    assert is_quiet(house)


QOS = {
    "qos_paused": "",
    "qos_downscaled": "",
    "qos_management": {"enabled": True, "skip_qos_swap": True, "apply_limits_to_qos": True},
}


def test_budgets_on_a_qos_are_set_reset_and_read_there(house: SimulatedSite) -> None:
    house = house.with_(settings={**house.settings, **QOS})
    resource = sold(house)
    name = resource.backend_id
    assert house.slurm.state.qos_limits[name]["cpu"] == 15 * K_HOUR
    use(house, resource, 8 * K_HOUR)
    next_quarter(house)
    house.sync()
    assert house.slurm.state.qos_limits[name]["cpu"] == 12 * K_HOUR
    assert [name] == list(house.slurm.state.qos_counted_since)
    assert is_quiet(house)


def test_policies_that_cannot_be_read_change_nothing(house: SimulatedSite) -> None:
    resource = sold(house)
    house.sandbox.faults.add("*_slurm_periodic_*_list", "status", status=500, times=None)
    house.sync()
    assert budget_of(house, resource)["cpu"] == 15 * K_HOUR
    assert house.sandbox.customer.current(resource).limits == {"cpu": 10, "mem": 2}


def test_work_is_a_constant_where_nothing_changed(house: SimulatedSite) -> None:
    first = sold(house)
    assert is_quiet(house)
    of_one = (len(house.sandbox.requests), sum(house.slurm.commands_run.values()))
    for number in range(3):
        house.created(house.project(f"p{number}"), f"run{number}", cpu=1, mem=1)
    house.sync()
    assert is_quiet(house)
    of_four = (len(house.sandbox.requests), sum(house.slurm.commands_run.values()))
    assert of_one[1] == of_four[1]
    assert of_four[0] - of_one[0] <= 3 * 2  # a team each
    assert first.backend_id in house.slurm.state.accounts


def test_an_account_that_is_made_again_opens_the_period_again(house: SimulatedSite) -> None:
    resource = sold(house)
    use(house, resource, 4 * K_HOUR)
    with house.slurm.change() as cluster:
        del cluster.accounts[resource.backend_id]
    house.with_(recreate=True).sync()
    assert "budget" not in house.sandbox.customer.current(resource).backend_metadata
    house.sync()
    # what the lost account had used of the period is not counted any more, so it is taken off
    assert budget_of(house, resource)["cpu"] == 11 * K_HOUR
    assert resets(house) == []


def test_an_event_of_waldur_leads_to_the_resource_and_is_not_carried_out(
    house: SimulatedSite,
) -> None:
    resource = sold(house)
    assert house.sandbox.customer.send_periodic_limits() == 1
    (event,) = house.sandbox.events.of("resource_periodic_limits")
    body = json.dumps({**event.payload, "object_type": "resource_periodic_limits"}).encode()
    found = read_message(body, "queue", house.offering().waldur_offering_uuid)
    assert isinstance(found, Event)
    assert found.scope == ResourceScope(UUID(resource.uuid))
    assert "resource_periodic_limits" in object_types_of(
        house.offering().model_copy(update={"membership_sync_backend": "slurm"})
    )
    assert house.sandbox.customer.send_periodic_limits() == 0  # unchanged, so not sent again
