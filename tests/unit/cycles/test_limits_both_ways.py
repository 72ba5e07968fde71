"""Who wins when limits differ: the backend, Waldur, or nobody."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from harness import SimulatedSite
from waldur_site_agent.backends import BackendState
from waldur_site_agent.config.settings import ComponentSettings
from waldur_site_agent.cycles.limits import by_account, decide, sync_resource_limits
from waldur_site_agent.cycles.membership import MembershipReport
from waldur_site_agent_sandbox import Resource

GPU = ComponentSettings(
    measured_unit="GPU-hours",
    unit_factor=Decimal(60),
    accounting_type="usage",
    label="GPU",
    limit=Decimal(100),
)

BOTH_VALUES = "limit cpu: Waldur has 120 k-Hours (7200000), the account 720000 (12 k-Hours)"


def limits_of(testbed: SimulatedSite, resource: Resource) -> dict[str, int]:
    return dict(testbed.slurm.state.accounts[resource.backend_id].limits)


def set_by_hand(testbed: SimulatedSite, resource: Resource, text: str) -> None:
    words = ["modify", "account", "where", f"name={resource.backend_id}", "set"]
    testbed.slurm.run(["sacctmgr", "-i", *words, f"GrpTRESMins={text}"])


def a_typing_error(testbed: SimulatedSite) -> Resource:
    """120 k-Hours were sold; somebody types a zero too few in sacctmgr."""
    resource = testbed.settled(testbed.project(ada="ada01"), cpu=120, mem=2)
    set_by_hand(testbed, resource, "cpu=720000")
    testbed.forget()
    return resource


def left(report: MembershipReport) -> list[str]:
    return [t for a in report.membership.accounts if a.limits for t in a.limits.left]


def is_quiet(testbed: SimulatedSite) -> bool:
    testbed.forget()
    testbed.sync()
    return testbed.writing_commands == 0 and testbed.sandbox.requests.writes() == []


@pytest.mark.guarantee("membership: Limits")
def test_where_waldur_wins_the_account_gets_back_what_was_sold(testbed: SimulatedSite) -> None:
    testbed = replace(testbed, limits="waldur")
    resource = a_typing_error(testbed)
    testbed.sync()
    assert limits_of(testbed, resource) == {"cpu": 7200000, "mem": 122880}
    assert testbed.sandbox.customer.current(resource).limits == {"cpu": 120, "mem": 2}
    assert is_quiet(testbed)


@pytest.mark.guarantee("membership: Limits")
def test_where_differences_are_reported_neither_side_changes(testbed: SimulatedSite) -> None:
    testbed = replace(testbed, limits="report")
    resource = a_typing_error(testbed)
    report = testbed.sync()
    assert left(report) == [f"{BOTH_VALUES}; left unchanged (limits: report)"]
    assert limits_of(testbed, resource)["cpu"] == 720000
    assert testbed.sandbox.customer.current(resource).limits == {"cpu": 120, "mem": 2}
    assert is_quiet(testbed)


@pytest.mark.guarantee("membership: Limits")
@pytest.mark.parametrize("limits", ["backend", "waldur"])
def test_a_component_that_came_into_the_file_later_is_shown_and_set_where_waldur_wins(
    testbed: SimulatedSite, limits: str
) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"), cpu=10, mem=2)
    set_by_hand(testbed, resource, "mem=-1")
    later = replace(testbed, limits=limits, components={"gres/gpu": GPU})
    testbed.forget()
    shown = " ".join(left(later.sync()))
    if limits == "waldur":
        assert limits_of(testbed, resource) == {"cpu": 600000, "mem": 122880, "gres/gpu": 6000}
        assert is_quiet(later)
        return
    assert limits_of(testbed, resource) == {"cpu": 600000}
    assert testbed.sandbox.customer.current(resource).limits == {"cpu": 10, "mem": 2}
    assert "limit mem: Waldur has 2 GB-hours (122880), the account none" in shown
    assert "limit gres/gpu: the file has 100 GPU-hours (6000), the account none" in shown
    assert shown.count('"waldur-site-agent limits sync --to backend" sets it') == 2
    with later.agent() as site:
        assert len(sync_resource_limits(site, follows="waldur").done) == 1
    assert limits_of(testbed, resource) == {"cpu": 600000, "mem": 122880, "gres/gpu": 6000}


@pytest.mark.parametrize("limits", ["backend", "waldur"])
def test_while_an_order_decides_no_limit_moves(testbed: SimulatedSite, limits: str) -> None:
    testbed = replace(testbed, limits=limits)
    resource = a_typing_error(testbed)
    testbed.sandbox.customer.place_update_order(resource, {"cpu": 200, "mem": 2})
    report = testbed.sync()
    assert left(report)[0].endswith("left unchanged: an order is in progress")
    assert limits_of(testbed, resource)["cpu"] == 720000
    assert testbed.sandbox.requests.count("*_set_limits") == 0
    testbed.cycle()
    testbed.sync()
    assert limits_of(testbed, resource)["cpu"] == 12000000
    assert testbed.sandbox.customer.current(resource).limits == {"cpu": 200, "mem": 2}


@pytest.mark.parametrize("limits", ["backend", "waldur"])
def test_limits_that_a_periodic_policy_owns_stay_on_both_sides(
    testbed: SimulatedSite, limits: str
) -> None:
    testbed = replace(testbed, limits=limits)
    resource = a_typing_error(testbed)
    testbed.sandbox.customer.add_periodic_policy()
    report = testbed.sync()
    assert left(report)[0].endswith("left unchanged: a periodic policy in Waldur sets the limits")
    assert limits_of(testbed, resource)["cpu"] == 720000
    assert testbed.sandbox.requests.count("*_set_limits") == 0


@pytest.mark.parametrize("limits", ["backend", "waldur"])
def test_the_limits_of_a_shared_account_are_nobodys(testbed: SimulatedSite, limits: str) -> None:
    testbed = replace(testbed, limits=limits)
    resource = a_typing_error(testbed)
    other = testbed.created(testbed.project("two", bob="bob01"), cpu=5, mem=2)
    testbed.sandbox.customer.edit(other, backend_id=resource.backend_id)
    testbed.forget()
    report = testbed.sync()
    assert left(report)[0].endswith("left unchanged: 2 resources share the account")
    assert limits_of(testbed, resource)["cpu"] == 720000
    assert testbed.sandbox.requests.count("*_set_limits") == 0


def test_a_limit_that_cannot_be_read_is_not_taken_for_a_missing_one(testbed: SimulatedSite) -> None:
    testbed = replace(testbed, limits="waldur")
    resource = a_typing_error(testbed)
    with testbed.agent() as site:
        listed = site.waldur.resources(site.offering.waldur_offering_uuid).items
        (found,) = [r for r in site.backend.observe().resources.values() if r.limits]
        odd = replace(found, limits={}, limits_are_known=False)
        state = BackendState(resources={found.id: odd})
        (decision,) = decide(site, by_account(listed), state, "waldur").values()
    assert not decision.changes_something
    assert decision.found.id == resource.backend_id
    assert decision.left[0].endswith("left unchanged: not every limit of the account can be read")


def test_limits_that_waldur_does_not_name_stay_where_waldur_wins(testbed: SimulatedSite) -> None:
    testbed = replace(testbed, limits="waldur")
    resource = testbed.settled(testbed.project(ada="ada01"), cpu=10)
    set_by_hand(testbed, resource, "mem=5,node=7")
    assert is_quiet(testbed)
    assert limits_of(testbed, resource) == {"cpu": 600000, "mem": 5, "node": 7}


def test_by_hand_either_side_can_follow_the_other_once(testbed: SimulatedSite) -> None:
    resource = a_typing_error(testbed)
    with testbed.agent() as site:
        planned = sync_resource_limits(site, follows="waldur", dry_run=True)
        change = "limit cpu 720000 -> 7200000 (sold in Waldur: 120 k-Hours)"
        assert planned.done == (f"{resource.backend_id}  on the account: {change}",)
        assert limits_of(testbed, resource)["cpu"] == 720000
        assert sync_resource_limits(site, follows="waldur").done == planned.done
    assert limits_of(testbed, resource) == {"cpu": 7200000, "mem": 122880}
    set_by_hand(testbed, resource, "cpu=720000")
    with testbed.agent() as site:
        told = sync_resource_limits(site, follows="backend")
    change = "limit cpu 120 -> 12 k-Hours (the account has 720000)"
    assert told.done == (f"{resource.backend_id}  in Waldur: {change}",)
    assert testbed.sandbox.customer.current(resource).limits == {"cpu": 12, "mem": 2}


def test_accounts_without_a_limit_on_either_side_are_named(testbed: SimulatedSite) -> None:
    resource = testbed.settled(testbed.project(ada="ada01"), cpu=10)
    (line,) = testbed.sync(dry_run=True).membership.unlimited
    assert line.startswith("limit mem: set neither in Waldur nor on the account")
    assert resource.backend_id in line


@pytest.mark.parametrize("billing_type", ["usage", "fixed"])
@pytest.mark.parametrize("by", ["membership_sync", "limits sync"])
def test_waldur_is_told_no_limit_of_what_it_does_not_sell_by_limit(
    testbed: SimulatedSite, billing_type: str, by: str
) -> None:
    """On many servers such a limit makes every later order of the resource fail with HTTP 500."""
    resource = testbed.settled(testbed.project(ada="ada01"), cpu=10)
    side = testbed.sandbox.customer
    offering = side.current(testbed.sandbox.offering)
    components = [replace(c, billing_type=billing_type) for c in offering.components[1:]]
    side.world.put(replace(offering, components=(offering.components[0], *components)))
    set_by_hand(testbed, resource, "cpu=720000,mem=61440")
    if by == "limits sync":
        with testbed.agent() as site:
            remarks = sync_resource_limits(site, follows="backend").remarks
    else:
        remarks = tuple(left(testbed.sync(dry_run=True)))
        testbed.sync()
    assert "it is not limit-based in Waldur" in remarks[0]
    assert side.current(resource).limits == {"cpu": 12}
    order = side.place_update_order(side.current(resource), {"cpu": 20})
    testbed.cycle()
    assert testbed.state(order) == "done"
